// A producer and worker around the official Go libraries, told what to do by one JSON object on stdin.
//
// It reports on stdout, one JSON object a line: {"pushed":[jids]}, {"refused":{jid:text}}, {"ran":job},
// {"state":"quiet"}, {"state":"terminate"}, {"ended":true}. Where Faktory is it learns as every program does:
// from FAKTORY_PROVIDER and FAKTORY_URL.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	faktory "github.com/contribsys/faktory/client"
	worker "github.com/contribsys/faktory_worker_go"
)

// Scenario is what stdin holds.
type Scenario struct {
	Do          string         `json:"do"` // push, push-bulk, work
	Jobs        []*faktory.Job `json:"jobs"`
	Wid         string         `json:"wid"`
	Queue       string         `json:"queue"`
	ChildQueue  string         `json:"child_queue"` // where Parent jobs push their children
	Concurrency int            `json:"concurrency"`
	Expect      int            `json:"expect"` // a worker ends after this many jobs; 0: when it is told to
	ExitCode    int            `json:"exit_code"`
}

var output sync.Mutex
var reports = os.Stdout

func report(event map[string]any) {
	output.Lock()
	defer output.Unlock()
	line, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(reports, string(line))
}

func push(scenario Scenario) error {
	client, err := faktory.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	pushed := []string{}
	for _, job := range scenario.Jobs {
		if err := client.Push(job); err != nil {
			return fmt.Errorf("%s: %w", job.Jid, err)
		}
		pushed = append(pushed, job.Jid)
	}
	report(map[string]any{"pushed": pushed})
	return nil
}

func pushBulk(scenario Scenario) error {
	client, err := faktory.Open()
	if err != nil {
		return err
	}
	defer client.Close()
	refused, err := client.PushBulk(scenario.Jobs)
	if err != nil {
		return err
	}
	pushed := []string{}
	for _, job := range scenario.Jobs {
		if _, found := refused[job.Jid]; !found {
			pushed = append(pushed, job.Jid)
		}
	}
	report(map[string]any{"pushed": pushed})
	report(map[string]any{"refused": refused})
	return nil
}

func work(scenario Scenario) error {
	lifetime, cancel := context.WithCancel(context.Background())
	defer cancel()
	manager := worker.NewManager()
	manager.ProcessWID = scenario.Wid
	manager.Concurrency = scenario.Concurrency
	manager.ProcessStrictPriorityQueues(scenario.Queue)

	count := 0
	var counting sync.Mutex
	manager.Use(func(ctx context.Context, job *faktory.Job, next func(context.Context) error) error {
		err := next(ctx)
		report(map[string]any{"ran": job})
		counting.Lock()
		defer counting.Unlock()
		count++
		if count == scenario.Expect {
			cancel()
		}
		return err
	})
	manager.Register("Record", func(context.Context, ...any) error { return nil })
	manager.Register("Flaky", func(context.Context, ...any) error { return errors.New("flaky on purpose") })
	manager.Register("Parent", func(ctx context.Context, args ...any) error {
		helper := worker.HelperFor(ctx)
		child := faktory.NewJob("Record", helper.Jid())
		child.Jid = helper.Jid() + "-child"
		child.Queue = scenario.ChildQueue
		return helper.With(func(client *faktory.Client) error { return client.Push(child) })
	})
	manager.On(worker.Quiet, func(*worker.Manager) error {
		report(map[string]any{"state": "quiet"})
		return nil
	})
	manager.On(worker.Shutdown, func(*worker.Manager) error {
		report(map[string]any{"state": "terminate"})
		return nil
	})
	manager.On(worker.Startup, func(*worker.Manager) error {
		report(map[string]any{"state": "started"})
		return nil
	})
	if err := manager.RunWithContext(lifetime); err != nil {
		return err
	}
	report(map[string]any{"ended": true})
	return nil
}

func main() {
	os.Stdout = os.Stderr // the worker library logs to stdout
	var scenario Scenario
	decoder := json.NewDecoder(os.Stdin)
	decoder.UseNumber() // numbers in args go out as they came
	err := decoder.Decode(&scenario)
	if err == nil {
		switch scenario.Do {
		case "push":
			err = push(scenario)
		case "push-bulk":
			err = pushBulk(scenario)
		case "work":
			err = work(scenario)
		default:
			err = fmt.Errorf("unknown scenario %q", scenario.Do)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(scenario.ExitCode)
}
