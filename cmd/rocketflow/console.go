package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/operate"
)

// consoleFlags are the flags of console.
type consoleFlags struct {
	systemFlags
	listen    string
	hosts     []string
	actions   bool
	bodies    bool
	anyone    bool
	maxChange int
}

func newConsoleCommand() *cobra.Command {
	var f consoleFlags
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Serve the web console on this machine",
		Long: `Serves the web console: what each service owes, what waits and why, what happened to an event, dead letters, streams,
sagas, timeouts, consumers, the doctor and a reconciliation.

It has no login, so it listens on this machine alone, where every local user can reach it. It shows no bodies of events
without --bodies, and changes nothing without --actions. To give it to a team, mount package console behind a router with
a login: see docs/console.md.

By default all schemas of the database with rocketflow's tables are shown. Credentials and TLS of the broker are those of
rocketflow resend. Ctrl-C ends it.`,
		Example: `  rocketflow console
  rocketflow console --listen 127.0.0.1:8090 --bodies --actions
  rocketflow console --database "$ORDERS_URL" --database "$PAYMENTS_URL" --namesrv 127.0.0.1:9876`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.withParts(cmd.Context(), func(ctx context.Context, parts systemParts) error { return f.serve(ctx, cmd, parts) })
		},
	}
	f.systemFlags.add(cmd)
	f.partial = true
	_ = cmd.Flags().MarkHidden("json") // there is nothing to print
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8095", "address to listen on; port 0 chooses one")
	cmd.Flags().BoolVar(&f.anyone, "insecure-listen", false, "allow --listen on other addresses than loopback: anybody who reaches it sees everything")
	cmd.Flags().StringArrayVar(&f.hosts, "host", nil, "a further name under which the console is reached, as browsers send it; may be repeated")
	cmd.Flags().BoolVar(&f.actions, "actions", false, "allow to change things, in the name of the local user")
	cmd.Flags().BoolVar(&f.bodies, "bodies", false, "show the bodies of events and the data of sagas")
	cmd.Flags().IntVar(&f.maxChange, "max-change", 1000, "the most that one action changes")
	return cmd
}

// check refuses an address that others reach.
func (f *consoleFlags) check() error {
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return usagef("--listen %q: want host:port", f.listen)
	}
	if ip := net.ParseIP(host); !f.anyone && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("--listen %q: the console has no login, so it listens on loopback only; mount package console behind a login, or set --insecure-listen", f.listen)
	}
	if f.maxChange < 1 {
		return usagef("--max-change %d: want at least 1", f.maxChange)
	}
	return nil
}

// local is who uses this machine.
func (f *consoleFlags) local() console.Viewer {
	v := console.Viewer{Name: "local", Bodies: f.bodies}
	if u, err := user.Current(); err == nil && u.Username != "" {
		v.Name = u.Username
	}
	if f.actions {
		v.Actions = console.AllActions()
	}
	return v
}

func (f *consoleFlags) serve(ctx context.Context, cmd *cobra.Command, parts systemParts) error {
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	config := console.Config{
		Services: servicesOf(parts.config.Operators), Unread: parts.config.Unread, Broker: parts.config.Broker,
		Hosts: append([]string{"localhost", "127.0.0.1", "::1"}, f.hosts...), MaxChange: f.maxChange, Logger: log,
	}
	if host, _, err := net.SplitHostPort(f.listen); err == nil && host != "" {
		config.Hosts = append(config.Hosts, host)
	}
	viewer := f.local()
	config.Authorize = func(*http.Request) (console.Viewer, error) { return viewer, nil }
	var err error
	if config.Doctor, err = f.doctor(parts.pools); err != nil {
		return err
	}
	c, err := console.New(config)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", f.listen, err)
	}
	if err := c.Start(ctx); err != nil {
		listener.Close()
		return err
	}
	serving := &http.Server{
		Handler: c, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 3 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	fmt.Fprintf(cmd.OutOrStdout(), "console of %s: http://%s/\n", plural(len(config.Services), "service"), listener.Addr())
	if parts.problem != nil {
		fmt.Fprintf(cmd.OutOrStdout(), "the broker is not asked: %v\n", parts.problem)
	}
	failed := make(chan error, 1)
	go func() { failed <- serving.Serve(listener) }()
	select {
	case <-ctx.Done():
	case err := <-failed:
		return errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if e := serving.Shutdown(stop); e != nil {
		_ = serving.Close() // a page takes longer than the user waits
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(err, c.Stop(stop))
	}
	return c.Stop(stop)
}

// servicesOf names services by their schemas; where databases have the same schema, with a number.
func servicesOf(operators []*operate.Operator) (list []console.Service) {
	seen := map[string]int{}
	for _, o := range operators {
		name := o.Schema()
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s-%d", name, seen[name])
		}
		list = append(list, console.Service{Name: name, Operator: o})
	}
	return list
}

// doctor returns the doctor of the console's page.
func (f *consoleFlags) doctor(pools []*pgxpool.Pool) (*doctor.Doctor, error) {
	c := doctor.Config{}
	for _, pool := range pools {
		c.Databases = append(c.Databases, doctor.Database{Pool: pool, Schemas: f.schemas})
	}
	if f.broker.named() {
		tls, err := app.TLSFromEnv(os.Getenv)
		if err != nil {
			return nil, err
		}
		profile, err := app.ProfileFromEnv(os.Getenv)
		if err != nil {
			return nil, err
		}
		c.Broker = &doctor.Broker{
			Unlisted:    profile.RefusesListing(),
			NameServers: strings.Split(f.broker.servers(), ";"), Namespace: f.broker.space(),
			AccessKey: os.Getenv(app.EnvAccessKey), SecretKey: os.Getenv(app.EnvSecretKey), TLS: tls,
		}
	}
	return doctor.New(c)
}
