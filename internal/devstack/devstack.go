package devstack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Config selects the servers to start. The zero value starts PostgreSQL and RocketMQ, and deletes their data at the end.
type Config struct {
	// DatabaseURL is the connection string of a PostgreSQL that runs already. Start checks that it responds, and starts none.
	// Defaults to starting one.
	DatabaseURL string
	// NameServer is the address of the name server of a RocketMQ that runs already, or several, separated by semicolons. Start
	// checks that one of them responds, and starts no RocketMQ.
	// Defaults to starting one.
	NameServer string
	// TLS is for the check of NameServer.
	// Defaults to a connection without TLS.
	TLS *tls.Config

	// Dir is the directory of data and logs. It is kept.
	// Defaults to a temporary directory, which Stop removes.
	Dir string
	// Keep makes Stop keep the temporary directory.
	Keep bool

	// Postgres configures PostgreSQL. Its Dir and Logger are set by Start.
	Postgres PostgresConfig
	// RocketMQ configures RocketMQ. Its Dir and Logger are set by Start.
	RocketMQ RocketMQConfig

	// Embedded, if not nil, starts the embedded broker instead of a RocketMQ. It keeps no messages, even if there is a Dir. Its
	// Dir and Logger are set by Start.
	Embedded *EmbeddedConfig

	// Logger receives what is started and downloaded.
	// Defaults to a logger that discards everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Stack is a running PostgreSQL with a broker. Servers that ran before Start are nil here.
type Stack struct {
	// Postgres is nil if it ran already.
	Postgres *Postgres
	// RocketMQ is nil if it ran already or if Embedded was started instead.
	RocketMQ *RocketMQ
	// Embedded is nil if it was not configured or if a RocketMQ ran already.
	Embedded *Embedded

	config Config
	dir    *directory // nil if both ran already
}

// Start starts the servers that config selects, concurrently, and returns when they are ready. It takes a second with the
// embedded broker, five with a RocketMQ, and a minute if that has to be downloaded. ctx bounds the start only. After an error
// nothing runs.
func Start(ctx context.Context, config Config) (*Stack, error) {
	s := &Stack{config: config.withDefaults()}
	if err := s.config.findExisting(ctx); err != nil {
		return nil, err
	}
	if s.config.DatabaseURL != "" && s.config.NameServer != "" {
		return s, nil
	}
	var err error
	if s.dir, err = openDirectory(s.config.Dir, "", s.config.Keep); err != nil {
		return nil, err
	}
	group, starting := errgroup.WithContext(ctx)
	if s.config.DatabaseURL == "" {
		group.Go(func() (err error) {
			c := s.config.Postgres
			c.Dir, c.Logger = s.dir.sub("postgres"), s.config.Logger
			if s.config.Dir == "" && !s.config.Keep && c.NoFsync {
				c.Dir = "" // a temporary one in memory
			}
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
			if !s.config.Postgres.NoFsync { // not for tests
				c.JavaOptions = append([]string{fullSpeed}, c.JavaOptions...)
			}
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

// findExisting checks that servers which are said to run respond: an environment variable may be left over from a stack that
// has ended.
func (c Config) findExisting(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if c.DatabaseURL != "" {
		conn, err := pgx.Connect(ctx, c.DatabaseURL)
		if err != nil {
			return fmt.Errorf("DATABASE_URL names a PostgreSQL that can't be used (unset it to start one): %w", err)
		}
		conn.Close(ctx)
	}
	if c.NameServer == "" {
		return nil
	}
	var err error
	for _, name := range strings.Split(c.NameServer, ";") {
		if _, err = brokersOf(ctx, name, c.TLS); err == nil {
			return nil
		}
	}
	return fmt.Errorf("ROCKETMQ_NAMESRV names a RocketMQ that can't be used (unset it to start one): %w", err)
}

// DatabaseURL returns the connection string of PostgreSQL, as its superuser if Start has started it.
func (s *Stack) DatabaseURL() string {
	if s.Postgres == nil {
		return s.config.DatabaseURL
	}
	return s.Postgres.URL()
}

// NameServer returns the address of the name server.
func (s *Stack) NameServer() string {
	switch {
	case s.Embedded != nil:
		return s.Embedded.NameServer()
	case s.RocketMQ != nil:
		return s.RocketMQ.NameServer()
	}
	return s.config.NameServer
}

// Dir returns the directory of the data and logs of the started servers, or "" if none was started.
func (s *Stack) Dir() string {
	if s.dir == nil {
		return ""
	}
	return s.dir.path
}

// Keep makes Stop keep the temporary directories, for the analysis of a failure.
func (s *Stack) Keep() {
	if s.dir != nil {
		s.dir.keep()
	}
	if s.Postgres != nil {
		s.Postgres.dir.keep()
	}
}

// Wait waits until ctx ends and returns nil, or until a server of the stack ends by itself and returns an error with the
// reason. It must not be called while a server is killed or restarted.
func (s *Stack) Wait(ctx context.Context) error {
	var postgres, names, broker <-chan struct{} // a nil channel, for a server that is not ours, is never ready
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

// Stop stops the servers that Start has started, and removes the temporary directory. Servers that still run when ctx ends are
// killed. Further calls do nothing.
func (s *Stack) Stop(ctx context.Context) error {
	var group errgroup.Group
	if s.Postgres != nil {
		group.Go(func() error { return s.Postgres.Stop(ctx) })
	}
	if s.RocketMQ != nil {
		group.Go(func() error {
			if s.dir.temporary {
				s.RocketMQ.kill() // a graceful shutdown would save data that is deleted next
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
