package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
)

// A service that handles its own events and serves its readiness. A whole program is in examples/quickstart.
func Example() {
	config, err := app.ConfigFromEnv("shop", os.Getenv)
	if err != nil {
		log.Print(err) // names the variable that is missing or wrong
		return
	}
	config.Topics = []broker.Topic{{Name: "orders"}}
	config.Migrate = true
	a, err := app.New(config)
	if err != nil {
		log.Print(err)
		return
	}
	handlers.On(a.Router(), "mailer", func(ctx context.Context, tx rocketflow.Tx, p Placed) error {
		_, err := tx.Exec(ctx, "INSERT INTO mails (order_id) VALUES ($1)", p.ID)
		return err
	})
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", a.ReadyHandler())
	a.Serve(mux)
	if err := a.Run(context.Background()); err != nil { // until SIGINT or SIGTERM
		log.Print(err)
	}
}

func ExampleConfigFromEnv() {
	env := map[string]string{
		"DATABASE_URL":     "postgres://shop@127.0.0.1:5432/shop",
		"ROCKETMQ_NAMESRV": "10.0.0.1:9876;10.0.0.2:9876",
	}
	config, err := app.ConfigFromEnv("shop", func(name string) string { return env[name] })
	fmt.Println(config.Service, config.RocketMQ.NameServers, config.Database.MaxConns, err)

	env["LISTEN_ADDR"] = "8080"
	_, err = app.ConfigFromEnv("shop", func(name string) string { return env[name] })
	fmt.Println(err)
	// Output:
	// shop [10.0.0.1:9876 10.0.0.2:9876] 24 <nil>
	// LISTEN_ADDR: "8080": want [host]:port
}

// An error of New or Start names the part that failed.
func ExampleStartError() {
	err := error(&app.StartError{Part: app.PartDatabase, Err: rocketflow.ErrNotMigrated})
	var start *app.StartError
	if errors.As(err, &start) {
		fmt.Println(start.Part)
	}
	fmt.Println(err)
	// Output:
	// database
	// can't start: database: database schema is not migrated: run `rocketflow migrate up`
}

// What ReadyHandler responds with while the broker is away: the service is ready, and degraded.
func ExampleReport() {
	report := app.Report{
		Service:  "shop",
		Status:   app.StatusDegraded,
		Problems: []app.Problem{{Part: app.PartBroker, Reason: "broker can't be reached"}},
		Backlog:  app.Backlog{Events: 12, OldestSeconds: 3.5},
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", text)
	// Output:
	// {
	//   "service": "shop",
	//   "status": "degraded",
	//   "problems": [
	//     {
	//       "part": "broker",
	//       "reason": "broker can't be reached"
	//     }
	//   ],
	//   "backlog": {
	//     "events": 12,
	//     "oldest_seconds": 3.5
	//   }
	// }
}

// The error of a variable that can't be used names the file.
func ExampleTLSFromEnv() {
	variables := map[string]string{"ROCKETMQ_TLS_CA": "/etc/rocketmq/missing.pem"}
	_, err := app.TLSFromEnv(func(name string) string { return variables[name] })
	fmt.Println(err)
	// Output: ROCKETMQ_TLS_CA: file /etc/rocketmq/missing.pem can't be read: no such file or directory
}
