// A load program around the official Go client: one goroutine and one connection a producer, one push after the other.
//
// It reads an order (a JSON object, one line), connects, writes {"ready":true}, reads a line, pushes, and writes a
// report; then it takes the next order, until stdin ends.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	faktory "github.com/contribsys/faktory/client"
)

type order struct {
	URL       string  `json:"url"`
	Queue     string  `json:"queue"`
	Producers int     `json:"producers"`
	Seconds   float64 `json:"seconds"`
	Size      int     `json:"size"`
}

type ready struct {
	Ready bool   `json:"ready"`
	Error string `json:"error"`
}

type report struct {
	Jobs    int     `json:"jobs"`
	Seconds float64 `json:"seconds"`
	Replies []int64 `json:"replies"` // microseconds
	Error   string  `json:"error"`
}

type producer struct {
	client  *faktory.Client
	replies []int64
	ended   time.Time
	err     error
}

func (p *producer) run(what order, start time.Time) {
	p.ended = start
	end := start.Add(time.Duration(what.Seconds * float64(time.Second)))
	text := strings.Repeat("x", what.Size)
	for number := 0; p.ended.Before(end); number++ {
		argument := map[string]any{"a": number, "b": 1}
		if text != "" {
			argument["text"] = text
		}
		job := faktory.NewJob("Add", argument)
		job.Queue = what.Queue
		before := time.Now()
		if p.err = p.client.Push(job); p.err != nil {
			return
		}
		p.ended = time.Now()
		p.replies = append(p.replies, p.ended.Sub(before).Microseconds())
	}
}

func connect(what order) ([]*producer, error) {
	address, err := url.Parse(what.URL)
	if err != nil {
		return nil, err
	}
	password, _ := address.User.Password()
	producers := []*producer{}
	for range what.Producers {
		server := faktory.DefaultServer()
		server.Address = address.Host
		client, err := faktory.Dial(server, password)
		if err != nil {
			return nil, err
		}
		producers = append(producers, &producer{client: client})
	}
	return producers, nil
}

func main() {
	input := bufio.NewReader(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			return
		}
		var what order
		var producers []*producer
		if err = json.Unmarshal(line, &what); err == nil {
			producers, err = connect(what)
		}
		if err != nil {
			output.Encode(ready{Error: err.Error()})
			continue
		}
		output.Encode(ready{Ready: true})
		if _, err = input.ReadBytes('\n'); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		output.Encode(push(what, producers))
	}
}

func push(what order, producers []*producer) report {
	start := time.Now()
	var working sync.WaitGroup
	for _, one := range producers {
		working.Add(1)
		go func() {
			defer working.Done()
			one.run(what, start)
			one.client.Close()
		}()
	}
	working.Wait()
	done := report{Replies: []int64{}}
	for _, one := range producers {
		done.Replies = append(done.Replies, one.replies...)
		done.Seconds = max(done.Seconds, one.ended.Sub(start).Seconds())
		if one.err != nil {
			done.Error = one.err.Error()
		}
	}
	done.Jobs = len(done.Replies)
	return done
}
