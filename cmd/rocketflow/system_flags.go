package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// systemFlags are the flags of commands that follow events across services: any number of databases and schemas, and a broker.
type systemFlags struct {
	databases, schemas []string
	json               bool
	partial            bool // one of several databases that can't be read is named, and the others are read
	broker             brokerFlags
}

func (f *systemFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.databases, "database", nil, "Postgres to read; may be repeated (default $DATABASE_URL)")
	cmd.Flags().StringArrayVar(&f.databases, "database-url", nil, "the same as --database")
	cmd.Flags().StringArrayVar(&f.schemas, "schema", nil, "schema to read; may be repeated (default all with rocketflow's tables)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON, for programs")
	f.broker.add(cmd)
	_ = cmd.Flags().MarkHidden("database-url") // for those who know it from other commands
}

// with calls fn with the schemas of all databases, and with the broker if one is configured. A broker that can't be reached is no
// error: brokerProblem says why it isn't asked.
func (f *systemFlags) with(ctx context.Context, fn func(ctx context.Context, y *operate.System, brokerProblem error) error) error {
	return f.withParts(ctx, func(ctx context.Context, parts systemParts) error {
		y, err := operate.NewSystem(parts.config)
		if err != nil {
			return err
		}
		return fn(ctx, y, parts.problem)
	})
}

// systemParts are what a System is made of.
type systemParts struct {
	config  operate.SystemConfig
	pools   []*pgxpool.Pool
	problem error // why the broker that is configured can't be asked
}

// withParts calls fn with what a System is made of, and closes it afterwards.
func (f *systemFlags) withParts(ctx context.Context, fn func(context.Context, systemParts) error) error {
	urls := f.databases
	if len(urls) == 0 {
		urls = []string{os.Getenv("DATABASE_URL")}
	}
	var client *rocketmq.Client
	var problem error
	if f.broker.named() {
		open, cancel := context.WithTimeout(ctx, 10*time.Second)
		client, problem = f.broker.open(open)
		cancel()
		if problem == nil {
			defer func() { _ = client.Close(ctx) }() // nothing is in flight
		}
	}
	config := operate.SystemConfig{}
	if client != nil {
		config.Broker = client
	}
	var pools []*pgxpool.Pool
	defer func() {
		for _, p := range pools {
			p.Close()
		}
	}()
	for _, url := range urls {
		pool, found, unread, err := f.discover(ctx, url)
		var wrong *usageError
		switch {
		case err == nil:
		case f.partial && len(urls) > 1 && ctx.Err() == nil && !errors.As(err, &wrong):
			config.Unread = append(config.Unread, operate.UnreadSchema{Schema: "*", Reason: err.Error()})
			continue
		default:
			return err
		}
		pools = append(pools, pool)
		if client != nil {
			for i, o := range found {
				if found[i], err = operate.New(operate.Config{Pool: pool, Schema: o.Schema(), Broker: client, Actor: osUser()}); err != nil {
					return err
				}
			}
		}
		config.Operators, config.Unread = append(config.Operators, found...), append(config.Unread, unread...)
	}
	if len(f.schemas) > 0 { // each may be in one of the databases
		config.Unread = slices.DeleteFunc(config.Unread, func(u operate.UnreadSchema) bool {
			return slices.ContainsFunc(config.Operators, func(o *operate.Operator) bool { return o.Schema() == u.Schema })
		})
	}
	if len(config.Operators) == 0 {
		if len(config.Unread) > 0 {
			return errors.New(config.Unread[0].Reason)
		}
		return errors.New("no schema has rocketflow's tables: create them with `rocketflow migrate up`, or set --database to another database")
	}
	return fn(ctx, systemParts{config, pools, problem})
}

// discover connects to a database and looks for rocketflow's schemas in it. The caller closes the pool unless there is an error.
func (f *systemFlags) discover(ctx context.Context, url string) (*pgxpool.Pool, []*operate.Operator, []operate.UnreadSchema, error) {
	pool, err := (&databaseFlags{url: url, schema: "any"}).open(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	found, unread, err := operate.Discover(ctx, pool, f.schemas...)
	if err != nil {
		pool.Close()
		return nil, nil, nil, err
	}
	return pool, found, unread, nil
}

// brokerNote says why the broker wasn't asked, for a report that would have asked it; "" if it was or need not have been.
func (f *systemFlags) brokerNote(note string, problem error) string {
	if note != "" && problem != nil {
		return fmt.Sprintf("not asked: %v", problem)
	}
	return note
}
