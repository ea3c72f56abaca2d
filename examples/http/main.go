// Command http shows how an HTTP interface lives with transactions that publish: requests that a client may repeat, and what
// to respond when the broker is away for long or when the outcome of a commit is unknown.
package main

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strconv"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
)

// AccountCredited is published once for each deposit.
type AccountCredited struct {
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
}

// EventMeta implements rocketflow.Payload. Events of one account are delivered in the order of their commits.
func (p AccountCredited) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "accounts", Type: "account.credited", Subject: p.Account}
}

const table = "CREATE TABLE IF NOT EXISTS deposits (id text PRIMARY KEY, account text NOT NULL, cents bigint NOT NULL)"

func main() {
	config, err := app.ConfigFromEnv("bank", os.Getenv)
	check(err)
	config.Migrate, config.CreateTopics = true, true
	config.Topics = []broker.Topic{{Name: "accounts"}}
	config.Logger = slog.Default()
	a, err := app.New(config)
	check(err)
	_, err = a.Pool().Exec(context.Background(), table)
	check(err)

	mux := http.NewServeMux()
	mux.Handle("GET /readyz", a.ReadyHandler()) // 200 while the broker is away: deposits are taken
	mux.Handle("GET /livez", a.LiveHandler())
	mux.Handle("PUT /accounts/{account}/deposits/{id}", deposit{a.Outbox()})
	a.Serve(mux)
	check(a.Run(context.Background()))
}

// deposit credits an account. The client chooses the id, so that a request without a response can be repeated.
type deposit struct{ outbox *outbox.Outbox }

// ServeHTTP implements http.Handler.
func (d deposit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, credit := r.PathValue("id"), AccountCredited{Account: r.PathValue("account")}
	var err error
	if credit.Cents, err = strconv.ParseInt(r.URL.Query().Get("cents"), 10, 64); err != nil || credit.Cents < 1 {
		http.Error(w, "cents: want a number above 0", http.StatusBadRequest)
		return
	}
	err = d.outbox.Within(r.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO deposits VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", id, credit.Account, credit.Cents)
		if err != nil || tag.RowsAffected() == 0 {
			return err // nil: the request is repeated, there is nothing to publish
		}
		return tx.Publish(ctx, credit)
	})
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, rocketflow.ErrBackpressure): // the broker has been away for long
		w.Header().Set("Retry-After", "10")
		http.Error(w, "try again later", http.StatusServiceUnavailable)
	case errors.Is(err, rocketflow.ErrCommitUnknown): // the deposit may be committed, and then its event is sent
		http.Error(w, "the outcome is unknown: repeat the request", http.StatusServiceUnavailable)
	default:
		log.Printf("deposit %s: %v", id, err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
