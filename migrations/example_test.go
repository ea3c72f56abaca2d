package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
)

// A service, or a job of its deployment, creates and updates the tables before the service starts.
func ExampleUp() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Print(err)
		return
	}
	defer pool.Close()
	if err := migrations.Up(ctx, pool, rocketflow.DefaultSchema); err != nil {
		log.Print(err)
	}
}

// A service whose role may not create tables checks that they are there.
func ExampleCheck() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Print(err)
		return
	}
	defer pool.Close()
	if err := migrations.Check(ctx, pool, rocketflow.DefaultSchema); errors.Is(err, rocketflow.ErrNotMigrated) {
		log.Print("run `rocketflow migrate up` first")
	}
}

// UpNotify reports the sessions that a migration waits for, so that an operator can end them.
func ExampleUpNotify() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Print(err)
		return
	}
	defer pool.Close()
	err = migrations.UpNotify(ctx, pool, rocketflow.DefaultSchema, func(h migrations.Holder) {
		log.Printf("the migration waits for %v", h)
	})
	if err != nil {
		log.Print(err)
	}
}

// List shows which migrations are applied.
func ExampleList() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Print(err)
		return
	}
	defer pool.Close()
	list, err := migrations.List(ctx, pool, rocketflow.DefaultSchema)
	if err != nil {
		log.Print(err)
		return
	}
	for _, s := range list {
		fmt.Println(s.Version, s.Name, "pending:", s.AppliedAt.IsZero())
	}
}

// A Holder is printed on one line, without the fields that Postgres doesn't show.
func ExampleHolder_String() {
	fmt.Println(migrations.Holder{PID: 4711, Role: "reporting", State: "idle in transaction", Since: 90 * time.Second})
	// Output: process 4711, role reporting, state idle in transaction, in a transaction for 1m30s
}

// The error of a migration that could not get its locks in time names the sessions that have them.
func ExampleWaitError() {
	err := fmt.Errorf("migrate: %w", &migrations.WaitError{
		For: []migrations.Holder{{PID: 4711, Role: "reporting"}},
		Err: context.DeadlineExceeded,
	})
	var wait *migrations.WaitError
	if errors.As(err, &wait) {
		for _, h := range wait.For {
			fmt.Println("end the session of", h.Role, "with pg_terminate_backend, or wait:", h.PID)
		}
	}
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// end the session of reporting with pg_terminate_backend, or wait: 4711
	// true
}
