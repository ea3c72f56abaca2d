// Command monitoring makes deploy/prometheus and deploy/grafana: alert rules with their tests, and a dashboard, from the lists of alerts and
// panels here. Its tests check that the files are current, that each metric and label exists, and that docs/runbook.md has an entry for
// each alert.
//
//	go generate ./deploy/monitoring
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

//go:generate go run . ..

// files returns what is made, by the path below deploy.
func files() map[string][]byte {
	return map[string][]byte{
		"prometheus/rules.yaml":      rules(),
		"prometheus/rules_test.yaml": ruleTests(),
		"grafana/rocketflow.json":    dashboard(),
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: monitoring DIRECTORY")
		os.Exit(2)
	}
	for name, content := range files() {
		path := filepath.Join(os.Args[1], name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, content, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
