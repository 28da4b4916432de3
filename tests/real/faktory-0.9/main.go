// Faktory 0.9 as its own cmd/faktory starts it, but for the Web UI, whose generated pages are not in its module.
package main

import (
	"log"

	"github.com/contribsys/faktory/cli"
	"github.com/contribsys/faktory/util"
)

func main() {
	opts := cli.ParseArguments()
	util.InitLogger(opts.LogLevel)
	server, stop, err := cli.BuildServer(opts)
	if stop != nil {
		defer stop()
	}
	if err != nil {
		log.Fatal(err)
	}
	if err := server.Boot(); err != nil {
		log.Fatal(err)
	}
	go cli.HandleSignals(server)
	go server.Run()
	<-server.Stopper()
	server.Stop(nil)
}
