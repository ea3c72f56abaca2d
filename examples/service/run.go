package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/dig"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

// Main runs a service until SIGINT or SIGTERM and returns the exit code: 0 after an orderly stop, 1 with one line that
// says why, 2 for wrong usage. configure reads the settings; app returns the modules for them.
func Main(args []string, stderr io.Writer, configure func(getenv func(string) string) (Config, error), app func(Config) fx.Option) int {
	if len(args) > 0 {
		fmt.Fprintf(stderr, "unexpected argument %q: the settings are environment variables\n", args[0])
		return 2
	}
	config, err := configure(os.Getenv)
	if err == nil {
		log := slog.New(slog.NewTextHandler(stderr, nil)).With("service", config.Service)
		err = run(log, app(config))
	}
	if err != nil {
		fmt.Fprintln(stderr, oneLine(nameVariable(err)))
		return 1
	}
	return 0
}

func run(log *slog.Logger, options fx.Option) error {
	app := fx.New(options, fx.Supply(log), fx.NopLogger)
	if err := app.Err(); err != nil {
		return dig.RootCause(err)
	}
	stopped := app.Wait()                                                                      // receives signals from here on
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM) // that end the start, too
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, app.StartTimeout())
	defer cancel()
	if err := app.Start(ctx); err != nil {
		return err
	}
	log.Info("started")
	end := <-stopped
	log.Info("stopping", "signal", end.Signal.String())
	ctx, cancel = context.WithTimeout(context.Background(), app.StopTimeout())
	defer cancel()
	if err := app.Stop(ctx); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if end.ExitCode != 0 {
		return errors.New("shut down by a failure: see the log")
	}
	return nil
}

// nameVariable adds to an error the variable that most likely is the cause, unless the error names one.
func nameVariable(err error) error {
	var named *rocketflow.FieldError
	switch {
	case errors.As(err, &named):
		return err
	case errors.Is(err, broker.ErrUnauthorized):
		return &rocketflow.FieldError{Field: "ROCKETMQ_ACCESS_KEY", Reason: "the broker refuses: " + err.Error(), Err: err}
	case errors.As(err, new(*pgconn.ConnectError)):
		return &rocketflow.FieldError{Field: "DATABASE_URL", Reason: "can't reach the database: " + err.Error(), Err: err}
	case errors.Is(err, broker.ErrUnavailable):
		return &rocketflow.FieldError{Field: "ROCKETMQ_NAMESRV", Reason: "can't reach RocketMQ: " + err.Error(), Err: err}
	}
	return err
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
