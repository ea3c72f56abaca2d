package main

import (
	"bytes"
	"net/http"
	"os"
	"testing"

	"github.com/rocketflow/rocketflow/test/servicetest"
)

func TestMain(m *testing.M) {
	if servicetest.IsChild() {
		main()
		return
	}
	servicetest.Main(m)
}

// Each order gets its invoice; the one that is paid stays paid, the other is closed.
func TestOrdersArePaidOrClosed(t *testing.T) {
	t.Parallel()
	p := servicetest.StartProgram(t)
	p.Ready()
	for _, id := range []string{"o-1", "o-2"} {
		p.Want(http.StatusOK, "POST", "/orders/"+id)
		p.WaitFor("1", "SELECT count(*)::text FROM invoices WHERE order_id = $1", id)
	}
	p.Want(http.StatusOK, "POST", "/orders/o-1/payment")
	p.WaitFor("closed", "SELECT state FROM orders WHERE id = 'o-2'")
	p.WaitFor("paid", "SELECT state FROM orders WHERE id = 'o-1'")
	p.Want(http.StatusServiceUnavailable, "POST", "/orders/o-1") // there is one
	p.Stop()
}

// The program in README.md is this one.
func TestREADMEShowsThisProgram(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ = bytes.Cut(program, []byte("package main")) // without the doc comment
	if !bytes.Contains(readme, append([]byte("```go\npackage main"), append(program, "```"...)...)) {
		t.Error("README.md shows another program: copy main.go into its block, from `package main` on")
	}
}
