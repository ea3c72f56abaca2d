package main

import (
	"context"
	"os"
	"testing"
)

// TestMain makes the test's binary the program that the demo runs for its services.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "demo-service" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
