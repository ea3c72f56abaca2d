package console_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/operate"
)

// exampleOperator returns an operator whose pool connects to nothing, and a function that closes the pool.
func exampleOperator() (*operate.Operator, func()) {
	pool, err := pgxpool.New(context.Background(), "postgres://localhost/shop")
	if err != nil {
		panic(err)
	}
	operator, err := operate.New(operate.Config{Pool: pool, Schema: "order_rocketflow"})
	if err != nil {
		panic(err)
	}
	return operator, pool.Close
}

// A console is closed until somebody says who may see it.
func ExampleNew() {
	operator, closePool := exampleOperator()
	defer closePool()
	_, err := console.New(console.Config{Services: []console.Service{{Operator: operator}}})
	fmt.Println(err)
	// Output: console.Config.Authorize: missing: the console is closed unless it says who may see it
}

// A team mounts the console behind its own router and its own login.
func ExampleConsole_ServeHTTP() {
	operator, closePool := exampleOperator()
	defer closePool()
	c, err := console.New(console.Config{
		Services: []console.Service{{Operator: operator}},
		Prefix:   "/ops/rocketflow",
		Authorize: func(r *http.Request) (console.Viewer, error) {
			name := r.Header.Get("X-User") // as the team's proxy sets it after its login
			if name == "" {
				return console.Viewer{}, errors.New("not logged in")
			}
			return console.Viewer{Name: name, Actions: []console.Action{console.Retry, console.Pause, console.Resume}}, nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := c.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer c.Stop(ctx)

	mux := http.NewServeMux()
	mux.Handle("/ops/rocketflow/", c)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ops/rocketflow/", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 403 You may not see this.
}

// What a viewer may do is a list of actions. Bodies can be edited only by those who may see them.
func ExampleViewer_May() {
	v := console.Viewer{Name: "ana", Actions: []console.Action{console.Retry, console.Edit}}
	fmt.Println(v.May(console.Retry), v.May(console.Edit), v.May(console.Discard))
	v.Bodies = true
	fmt.Println(v.May(console.Edit))
	// Output:
	// true false false
	// true
}
