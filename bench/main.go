// Command bench measures rocketflow beside what it competes with, side by side in one run: publishing at several
// numbers of callers, and handling at several numbers of streams. It prints medians of several rounds as Markdown.
//
//	make bench            # starts its own servers
//	go run ./bench -rounds 5 -seconds 3
//
// DATABASE_URL and ROCKETMQ_NAMESRV name the servers.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/rocketmq"
)

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds; each measures everything once, and medians are printed")
	flag.DurationVar(&o.duration, "duration", 2*time.Second, "how long each measurement of publishing lasts")
	flag.IntVar(&o.events, "events", 4000, "events of each measurement of handling")
	flag.StringVar(&o.only, "only", "", "measure only the ways of publishing with this name, and no handling")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of this process to the file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds   int
	duration time.Duration
	events   int
	only     string
	profile  string
}

// bed is what all measurements share.
type bed struct {
	options
	pool   *pgxpool.Pool
	client *rocketmq.Client
	schema string
	topic  string
}

func run(ctx context.Context, o options, out io.Writer) error {
	b, closeBed, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer closeBed()
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	published, err := b.publishing(ctx)
	if err != nil {
		return err
	}
	var handled []handled
	if o.only == "" {
		if handled, err = b.handling(ctx); err != nil {
			return err
		}
	}
	return report(ctx, out, b, published, handled)
}

func newBed(ctx context.Context, o options) (*bed, func(), error) {
	url, nameServers := os.Getenv("DATABASE_URL"), os.Getenv("ROCKETMQ_NAMESRV")
	if url == "" || nameServers == "" {
		return nil, nil, fmt.Errorf("DATABASE_URL and ROCKETMQ_NAMESRV must be set: run `make bench`")
	}
	b := &bed{options: o, schema: "bench_" + uuid.NewString()[:8]}
	b.topic = "bench-" + b.schema[6:]
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	config.MaxConns = 64
	config.ConnConfig.RuntimeParams["search_path"] = b.schema
	if b.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	if err := migrations.Up(ctx, b.pool, b.schema); err != nil {
		return nil, nil, err
	}
	if _, err := b.pool.Exec(ctx, "CREATE TABLE business (id bigserial PRIMARY KEY, account text NOT NULL, cents bigint NOT NULL)"); err != nil {
		return nil, nil, fmt.Errorf("create table: %w", err)
	}
	b.client, err = rocketmq.Open(ctx, rocketmq.Config{
		NameServers: strings.Split(nameServers, ";"), Service: "bench", Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return nil, nil, err
	}
	return b, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = b.client.Close(ctx)
		_, _ = b.pool.Exec(ctx, "DROP SCHEMA "+pgx.Identifier{b.schema}.Sanitize()+" CASCADE")
		b.pool.Close()
	}, nil
}

// newTopic creates a topic with 8 queues; measurements don't share any.
func (b *bed) newTopic(ctx context.Context, name string) (string, error) {
	topic := b.topic + "-" + name
	return topic, b.client.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 8, Kind: broker.Transaction})
}
