package frame

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Bed has the connections and the schema that all measurements share.
type Bed struct {
	Pool        *pgxpool.Pool // its search path is Schema
	Client      *rocketmq.Client
	Schema      string // holds rocketflow's tables and the table business
	NameServers []string

	meter  meter
	prefix string // of topics
}

// NewBed connects to the servers and creates a schema, which Close drops. Several name servers are separated by semicolons.
func NewBed(ctx context.Context, databaseURL, nameServers string) (_ *Bed, err error) {
	if databaseURL == "" || nameServers == "" {
		return nil, errors.New("DATABASE_URL and ROCKETMQ_NAMESRV must be set: run `make bench`")
	}
	id := uuid.NewString()[:8]
	b := &Bed{Schema: "bench_" + id, NameServers: strings.Split(nameServers, ";"), prefix: "bench-" + id}
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	config.MaxConns = 64
	config.ConnConfig.RuntimeParams["search_path"] = b.Schema
	if b.Pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if err := migrations.Up(ctx, b.Pool, b.Schema); err != nil {
		return nil, err
	}
	if _, err := b.Pool.Exec(ctx, "CREATE TABLE business (id bigserial PRIMARY KEY, account text NOT NULL, cents bigint NOT NULL)"); err != nil {
		return nil, fmt.Errorf("create table: %w", err)
	}
	b.Client, err = rocketmq.Open(ctx, rocketmq.Config{
		NameServers: b.NameServers, Service: "bench", Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return nil, err
	}
	b.meter, err = newMeter(ctx, b)
	return b, err
}

// Close drops the schema and closes the connections.
func (b *Bed) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if b.Client != nil {
		_ = b.Client.Close(ctx)
	}
	_, _ = b.Pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{b.Schema}.Sanitize()+" CASCADE")
	b.Pool.Close()
}

// NewTopic creates a topic with 8 queues. Each measurement has a topic of its own.
func (b *Bed) NewTopic(ctx context.Context) (string, error) {
	topic := fmt.Sprintf("%s-%d", b.prefix, time.Now().UnixNano())
	return topic, b.Client.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 8, Kind: broker.Transaction})
}
