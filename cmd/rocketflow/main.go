// Command rocketflow runs, migrates and explains what is built with rocketflow: see `rocketflow help`.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
