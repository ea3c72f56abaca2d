package crash

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// A publisher or consumer is a child process: this test binary, started again. Environment variables configure it.
const (
	envRole     = "CRASHTEST_ROLE"     // publisher or consumer
	envSchema   = "CRASHTEST_SCHEMA"   // of Postgres
	envTopic    = "CRASHTEST_TOPIC"    // also the prefix of the groups' names
	envKillAt   = "CRASHTEST_KILL_AT"  // the crash point; empty for none
	envKillNth  = "CRASHTEST_KILL_NTH" // crash when the crash point is reached for the nth time
	envEach     = "CRASHTEST_EACH"     // movements of each account
	envHalf     = "CRASHTEST_HALF"     // "no" for the relay path
	envGrace    = "CRASHTEST_GRACE"    // outbox.Config.SweepGrace
	envAccounts = "CRASHTEST_ACCOUNTS"
	envPace     = "CRASHTEST_PACE" // the least time between two movements, in microseconds
)

func TestMain(m *testing.M) {
	roles := map[string]func(context.Context) error{"publisher": publish, "consumer": consume}
	run, child := roles[os.Getenv(envRole)]
	if !child {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(envRole)+":", err)
		os.Exit(1)
	}
}

// crashPoint returns a function that is called with each step. It ends this process with SIGKILL when the crash point is reached
// for the nth time.
func crashPoint() func(step string) {
	at := os.Getenv(envKillAt)
	nth := int64(number(envKillNth))
	var seen atomic.Int64
	return func(step string) {
		if step == at && seen.Add(1) == nth {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}
	}
}

func number(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

// moved is the event: movement n of an account. n counts from 1.
type moved struct {
	Account string `json:"account"`
	N       int64  `json:"n"`
}

func (m moved) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: os.Getenv(envTopic), Type: "moved", Subject: m.Account}
}

// aborted is the event of transactions that roll back. No consumer may handle one.
type aborted struct {
	Account string `json:"account"`
}

func (a aborted) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: os.Getenv(envTopic), Type: "aborted", Subject: a.Account}
}

type world struct {
	pool   *pgxpool.Pool
	client *rocketmq.Client
	box    *outbox.Outbox
}

func open(ctx context.Context, listener *outbox.Listener) (*world, error) {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, err
	}
	config.ConnConfig.RuntimeParams["search_path"] = os.Getenv(envSchema)
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	client, err := rocketmq.Open(ctx, rocketmq.Config{
		NameServers: strings.Split(os.Getenv("ROCKETMQ_NAMESRV"), ";"), Service: "crash", Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	grace, err := time.ParseDuration(os.Getenv(envGrace))
	if err != nil {
		return nil, err
	}
	box, err := outbox.New(outbox.Config{
		Pool: pool, Broker: client, Source: "crash", Schema: os.Getenv(envSchema), Group: os.Getenv(envTopic) + "-" + os.Getenv(envRole),
		Path: map[bool]outbox.Path{false: outbox.HalfMessages, true: outbox.Relay}[os.Getenv(envHalf) == "no"],
		// Without a sweep nothing sends an event whose half message was late on a busy machine.
		HalfTimeout: min(20*time.Second, grace/2),
		SweepGrace:  grace, SweepInterval: 100 * time.Millisecond, MaxTransaction: 10 * time.Second,
		Listener: listener, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	return &world{pool, client, box}, box.Start(ctx)
}

func (w *world) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := errors.Join(w.box.Stop(ctx), w.client.Close(ctx))
	w.pool.Close()
	return err
}

// noSweep is a grace that is longer than any test.
const noSweep = "1h"

// publish is the main function of a publisher. It publishes the movements of each account, with every third transaction rolled
// back, and returns when no event is owed.
func publish(ctx context.Context) error {
	kill := crashPoint()
	var ended, acked atomic.Int64
	w, err := open(ctx, &outbox.Listener{
		Recorded:  func([]rocketflow.Event) { kill("recorded") },
		Prepared:  func(i outbox.PreparedInfo) { killIf(kill, "prepared", i.Err) },
		Committed: func([]rocketflow.Event) { kill("committed") },
		Ended: func(i outbox.EndedInfo) {
			if i.Err == nil {
				ended.Add(1)
			}
			killIf(kill, "ended", i.Err)
		},
		Relayed: func(i outbox.RelayedInfo) { killIf(kill, "relayed", i.Err) },
		Acked: func(i outbox.AckedInfo) {
			if i.Err == nil {
				acked.Add(int64(len(i.IDs)))
			}
			killIf(kill, "acked", i.Err)
		},
	})
	if err != nil {
		return err
	}
	each := int64(number(envEach))
	pace := time.NewTicker(max(time.Microsecond, time.Duration(number(envPace))*time.Microsecond))
	defer pace.Stop()
	for n := int64(1); n <= each; n++ {
		for a := range number(envAccounts) {
			<-pace.C
			// Without a sweep, no event may wait for an acknowledgement that a crash loses, except the one at the crash point.
			for os.Getenv(envGrace) == noSweep && acked.Load() < ended.Load() {
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			account := "account-" + strconv.Itoa(a)
			if err := w.move(ctx, account, n, kill); err != nil {
				return err
			}
		}
	}
	// Nothing more is published: the running processes have to find what is owed.
	for {
		owed, _, err := w.box.Backlog(ctx)
		if err != nil {
			return err
		}
		if owed == 0 {
			return w.close()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *world) move(ctx context.Context, account string, n int64, kill func(string)) error {
	if n%3 == 0 {
		err := w.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if err := tx.Publish(ctx, aborted{account}); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "INSERT INTO doomed VALUES (1)"); err != nil { // a deferred constraint fails in COMMIT
				return err
			}
			return nil
		})
		if err == nil {
			return errors.New("a doomed transaction committed")
		}
	}
	return w.box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO movement VALUES ($1, $2) ON CONFLICT DO NOTHING", account, n)
		if err != nil || tag.RowsAffected() == 0 { // an earlier life did it
			return err
		}
		if os.Getenv(envKillAt) == "committing" {
			// COMMIT waits in a deferred trigger for a lock that the parent holds; meanwhile this process crashes.
			if _, err := tx.Exec(ctx, "INSERT INTO slow VALUES ($1, $2)", account, n); err != nil {
				return err
			}
			time.AfterFunc(300*time.Millisecond, func() { kill("committing") })
		}
		return tx.Publish(ctx, moved{account, n})
	})
}

func killIf(kill func(string), step string, err error) {
	if err == nil {
		kill(step)
	}
}

// consume is the main function of a consumer. It handles movements until SIGTERM.
func consume(ctx context.Context) error {
	kill := crashPoint()
	w, err := open(ctx, nil)
	if err != nil {
		return ignoreWhenStopped(ctx, err)
	}
	router, err := handlers.New(handlers.Config{
		Pool: w.pool, Source: "crash", Transactor: w.box, Broker: w.client, Schema: os.Getenv(envSchema), GroupPrefix: os.Getenv(envTopic) + "-",
		BatchSize: 4, // so that there is a seventh batch, also if this process comes late
		Listener: &handlers.Listener{
			Received:  func(handlers.ReceivedInfo) { kill("received") },
			Ran:       func(handlers.BatchInfo) { kill("ran") },
			Committed: func(handlers.BatchInfo) { kill("handled") },
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	handlers.On(router, "ledger", func(ctx context.Context, tx rocketflow.Tx, m moved) error {
		e, _ := handlers.EventFrom(ctx)
		_, err := tx.Exec(ctx, "INSERT INTO effect (account, n, sequence, recorded_at) VALUES ($1, $2, $3, $4)", m.Account, m.N, e.Sequence, e.Time)
		return err
	})
	handlers.On(router, "ledger", func(ctx context.Context, tx rocketflow.Tx, a aborted) error {
		_, err := tx.Exec(ctx, "INSERT INTO effect (account, n, sequence) VALUES ($1, 0, 0)", a.Account)
		return err
	})
	if err := router.Start(ctx); err != nil {
		return ignoreWhenStopped(ctx, err)
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(router.Stop(stop), w.close())
}

// ignoreWhenStopped returns the error of a start, or nil if SIGTERM came meanwhile because others have handled everything.
func ignoreWhenStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// process starts a child process that is killed when the test ends.
func process(t *testing.T, env map[string]string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = os.Environ()
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// waitKilled waits for a child process to crash at its crash point.
func waitKilled(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) }) // it says where it stands
	defer late.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child ended with %v, want SIGKILL: its step never came", err)
	}
}

// waitExit waits for a publisher to end by itself when no event is owed.
func waitExit(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child ended with %v; killed means that something stayed owed for a minute", err)
	}
}

func terminate(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("child ended with %v", err)
	}
}

// query scans one row.
func query(t *testing.T, pool *pgxpool.Pool, sql string, to ...any) {
	t.Helper()
	if err := pool.QueryRow(context.Background(), sql).Scan(to...); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
}
