// Reads deployment files with the code of the programs that will read them, without a cluster or an engine:
//
//	manifest-checker compose FILE       Compose's own loader; prints the project as JSON
//	manifest-checker kustomize DIR      Kustomize's own build; prints the resources as YAML
//	manifest-checker podmonitor FILE    the Prometheus Operator's own types, decoded strictly
//
// Exit code 1, with the program's own words on stderr, when a file isn't accepted.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

var checks = map[string]func(path string) ([]byte, error){
	"compose":    compose,
	"kustomize":  kustomize,
	"podmonitor": podMonitor,
}

func compose(path string) ([]byte, error) {
	options, err := cli.NewProjectOptions([]string{path})
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project.MarshalJSON()
}

func kustomize(path string) ([]byte, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), path)
	if err != nil {
		return nil, err
	}
	return built.AsYaml()
}

func podMonitor(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var monitor monitoring.PodMonitor
	return nil, yaml.UnmarshalStrict(text, &monitor)
}

func main() {
	if len(os.Args) != 3 || checks[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: manifest-checker compose|kustomize|podmonitor PATH")
		os.Exit(2)
	}
	output, err := checks[os.Args[1]](os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.Write(output)
}
