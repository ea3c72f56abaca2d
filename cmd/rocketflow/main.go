// Command rocketflow runs servers for development, migrates the tables of services, shows what is in them, and does what
// operators do: see rocketflow help.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
