package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Config says which servers to start. The zero value starts both with what they hold thrown away at the end.
type Config struct {
	// DatabaseURL of a Postgres that runs already: none is started then, but it has to answer.
	DatabaseURL string
	// NameServer addresses, divided by semicolons, of a RocketMQ that runs already: none is started then, but one has
	// to answer.
	NameServer string

	// Dir keeps the data. Default: a temporary directory, removed by Stop.
	Dir string
	// Keep the temporary directory. A Dir that was given is always kept.
	Keep bool

	Postgres PostgresConfig // Dir and Logger are taken from above
	RocketMQ RocketMQConfig // Dir and Logger are taken from above

	// Embedded is started instead of a RocketMQ, unless nil. It keeps no messages, also if there is a Dir. Dir and Logger
	// are taken from above.
	Embedded *EmbeddedConfig

	// Logger tells what is started and fetched. Default: discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Stack is a Postgres and a RocketMQ, or what stands in for one.
type Stack struct {
	Postgres *Postgres // nil: it ran already
	RocketMQ *RocketMQ // nil: it ran already, or there is Embedded
	Embedded *Embedded // nil: not asked for, or a RocketMQ ran already

	config Config
	dir    *directory // nil: both ran already
}

// Start starts what Config asks for, both servers side by side, and returns when they can be used. ctx bounds only the
// start: a second with an embedded broker, some five with a RocketMQ, and a minute where that has to be fetched. After an
// error nothing runs.
func Start(ctx context.Context, config Config) (*Stack, error) {
	s := &Stack{config: config.withDefaults()}
	if err := s.config.findExisting(ctx); err != nil {
		return nil, err
	}
	if s.config.DatabaseURL != "" && s.config.NameServer != "" {
		return s, nil
	}
	var err error
	if s.dir, err = openDirectory(s.config.Dir, s.config.Keep); err != nil {
		return nil, err
	}
	group, starting := errgroup.WithContext(ctx)
	if s.config.DatabaseURL == "" {
		group.Go(func() (err error) {
			c := s.config.Postgres
			c.Dir, c.Logger = s.dir.sub("postgres"), s.config.Logger
			s.Postgres, err = StartPostgres(starting, c)
			return err
		})
	}
	switch {
	case s.config.NameServer != "":
	case s.config.Embedded != nil:
		group.Go(func() (err error) {
			c := *s.config.Embedded
			c.Dir, c.Logger = s.dir.sub("embedded"), s.config.Logger
			s.Embedded, err = StartEmbedded(c)
			return err
		})
	default:
		group.Go(func() (err error) {
			c := s.config.RocketMQ
			c.Dir, c.Logger = s.dir.sub("rocketmq"), s.config.Logger
			s.RocketMQ, err = StartRocketMQ(starting, c)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return nil, errors.Join(err, s.Stop(stopping))
	}
	return s, nil
}

// findExisting asks the servers that are said to run: a variable may be left from a stack that is gone.
func (c Config) findExisting(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if c.DatabaseURL != "" {
		conn, err := pgx.Connect(ctx, c.DatabaseURL)
		if err != nil {
			return fmt.Errorf("DATABASE_URL is given, so no PostgreSQL is started, but: %w", err)
		}
		conn.Close(ctx)
	}
	if c.NameServer == "" {
		return nil
	}
	var err error
	for _, name := range strings.Split(c.NameServer, ";") {
		if _, err = brokersOf(ctx, name); err == nil {
			return nil
		}
	}
	return fmt.Errorf("ROCKETMQ_NAMESRV is given, so no RocketMQ is started, but: %w", err)
}

// DatabaseURL connects to Postgres as its superuser.
func (s *Stack) DatabaseURL() string {
	if s.Postgres == nil {
		return s.config.DatabaseURL
	}
	return s.Postgres.URL()
}

// NameServer is the address of the name server.
func (s *Stack) NameServer() string {
	switch {
	case s.Embedded != nil:
		return s.Embedded.NameServer()
	case s.RocketMQ != nil:
		return s.RocketMQ.NameServer()
	}
	return s.config.NameServer
}

// Dir holds data and logs of the servers that were started; "" if none was.
func (s *Stack) Dir() string {
	if s.dir == nil {
		return ""
	}
	return s.dir.path
}

// Keep has Stop leave a temporary directory where it is: something went wrong that is worth a look.
func (s *Stack) Keep() {
	if s.dir != nil {
		s.dir.keep()
	}
}

// Wait returns nil when ctx ends, or an error that says why a server of the stack has ended by itself. It
// must not run while a server is killed or restarted.
func (s *Stack) Wait(ctx context.Context) error {
	var postgres, names, broker <-chan struct{} // nil, so never ready, where not ours
	if s.Postgres != nil {
		postgres = s.Postgres.server.done
	}
	if s.RocketMQ != nil {
		names, broker = s.RocketMQ.names.done, s.RocketMQ.broker.done
	}
	select {
	case <-ctx.Done():
		return nil
	case <-postgres:
		return s.Postgres.server.failure("has ended")
	case <-names:
		return s.RocketMQ.names.failure("has ended")
	case <-broker:
		return s.RocketMQ.broker.failure("has ended")
	}
}

// Stop ends the servers that Start started and removes the temporary directory. Those still running when ctx ends are
// killed. Only the first call does anything.
func (s *Stack) Stop(ctx context.Context) error {
	var group errgroup.Group
	if s.Postgres != nil {
		group.Go(func() error { return s.Postgres.Stop(ctx) })
	}
	if s.RocketMQ != nil {
		group.Go(func() error {
			if s.dir.temporary {
				s.RocketMQ.kill() // a graceful end would save what goes anyway
			}
			return s.RocketMQ.Stop(ctx)
		})
	}
	if s.Embedded != nil {
		group.Go(func() error { return s.Embedded.Stop(ctx) })
	}
	err := group.Wait()
	if s.dir != nil {
		err = errors.Join(err, s.dir.close())
	}
	if err != nil {
		return fmt.Errorf("stop servers: %w", err)
	}
	return nil
}
