package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// exitNotKnown is the exit code of doctor if it found nothing, but could not look at everything.
const exitNotKnown = 2

// doctorFlags are the flags of doctor.
type doctorFlags struct {
	databases, schemas, only, skip []string
	sagas                          []string
	nameServers, namespace, role   string
	producerGroup                  string
	pre, probe, json, list, all    bool
	timeout, checkTimeout          time.Duration
	expect                         doctor.Expect
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong with the host, Postgres, RocketMQ and a service's tables",
		Long: `Checks the host, Postgres, RocketMQ, and rocketflow's tables: settings under which rocketflow's promises don't hold,
and work that stands still. For each finding it prints what was seen, what is needed, and the command or SQL that mends
it; docs/doctor.md has a section for each check. It changes nothing. --probe alone sends something: a half message to
each topic, rolled back at once.

A check that can't look, because a server is away or a right is missing, is not known, which is never shown as ok. The
exit code is 0 if all is ok, 1 if there are findings, and 2 if there are none, but something is not known.

--database may be repeated, for several services; without it DATABASE_URL is examined, and all of its schemas that have
rocketflow's tables unless --schema names some. Credentials, TLS and the kind of RocketMQ are read from ROCKETMQ_…, as
for services. Behind a proxy, brokers can't be asked: what isn't known then comes with what to do instead.`,
		Example: `  rocketflow doctor
  rocketflow doctor --pre --namesrv mq:9876                  # before installing
  rocketflow doctor --role order_service --skip host         # the rights of a service's role
  rocketflow doctor --database $ORDERS --database $PAYMENTS  # two services
  rocketflow doctor --only broker-check-window --json`,
		Args: args(cobra.NoArgs),
		RunE: f.run,
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.databases, "database", nil, "a Postgres to examine; may be repeated (default $DATABASE_URL)")
	flags.StringArrayVar(&f.schemas, "schema", nil, "a schema to examine; may be repeated (default all with rocketflow's tables)")
	flags.StringVar(&f.role, "role", "", "role of the service, whose rights are examined (default that of the connection)")
	flags.StringVar(&f.producerGroup, "producer-group", "", "producer group of the service (default its name)")
	flags.StringVar(&f.nameServers, "namesrv", "", "name servers of RocketMQ, host:port;host:port (default $ROCKETMQ_NAMESRV)")
	flags.StringVar(&f.namespace, "namespace", "", "namespace of the topics and groups (default $ROCKETMQ_NAMESPACE)")
	flags.StringArrayVar(&f.sagas, "saga", nil, "a saga's version that processes register, name=version; may be repeated")
	flags.BoolVar(&f.pre, "pre", false, "only what can be checked before rocketflow is installed")
	flags.BoolVar(&f.probe, "probe", false, "also send a half message to each topic, and roll it back, to prove the right to publish")
	flags.StringArrayVar(&f.only, "only", nil, "run only this check or group; may be repeated")
	flags.StringArrayVar(&f.skip, "skip", nil, "don't run this check or group; may be repeated")
	flags.BoolVar(&f.all, "all", false, "show what is ok, too")
	flags.BoolVar(&f.list, "list", false, "list the checks, and run none")
	flags.BoolVar(&f.json, "json", false, "print JSON, for programs")
	flags.DurationVar(&f.timeout, "timeout", time.Minute, "maximum time of the whole examination")
	flags.DurationVar(&f.checkTimeout, "check-timeout", 5*time.Second, "maximum time of one check")
	flags.DurationVar(&f.expect.MaxTransaction, "max-transaction", 5*time.Minute, "how long a transaction may take: outbox.Config.MaxTransaction")
	flags.DurationVar(&f.expect.TimerHorizon, "timer-horizon", 71*time.Hour, "how far ahead timers are set: rocketmq.Config.TimerHorizon")
	flags.DurationVar(&f.expect.MaxAway, "max-away", 24*time.Hour, "how long a consumer may be stopped without losing events")
	flags.DurationVar(&f.expect.MaxIdleSaga, "max-idle-saga", 7*24*time.Hour, "how long a saga without a deadline may stay in one state")
	return cmd
}

func (f *doctorFlags) run(cmd *cobra.Command, _ []string) error {
	if f.list {
		return f.printList(cmd.OutOrStdout())
	}
	c, closePools, err := f.config(cmd.Context())
	defer closePools()
	if err != nil {
		return err
	}
	d, err := doctor.New(c)
	if err != nil {
		return &usageError{err}
	}
	report := d.Examine(cmd.Context())
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	if err := f.print(cmd.OutOrStdout(), report); err != nil {
		return err
	}
	switch {
	case len(report.Findings()) > 0:
		return &statusError{exitFailure}
	case len(report.Unknown()) > 0:
		return &statusError{exitNotKnown}
	}
	return nil
}

// config completes the flags from the environment. The caller calls closePools, also after an error.
func (f *doctorFlags) config(ctx context.Context) (c doctor.Config, closePools func(), err error) {
	closePools = func() {
		for _, d := range c.Databases {
			d.Pool.Close()
		}
	}
	urls := f.databases
	if len(urls) == 0 && os.Getenv(app.EnvDatabaseURL) != "" {
		urls = []string{os.Getenv(app.EnvDatabaseURL)}
	}
	nameServers := cmp.Or(f.nameServers, os.Getenv(app.EnvNameServers))
	if len(urls) == 0 && nameServers == "" {
		return c, closePools, usagef("nothing to examine is named: set --database or DATABASE_URL, and --namesrv or ROCKETMQ_NAMESRV")
	}
	for _, url := range urls {
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			return c, closePools, usagef("--database: %w", err)
		}
		size := int(config.MaxConns)
		if !strings.Contains(url, "pool_max_conns") {
			size = app.DefaultMaxConns
		}
		config.MaxConns = max(config.MaxConns, 4)
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return c, closePools, fmt.Errorf("connect to Postgres: %w", err)
		}
		c.Databases = append(c.Databases, doctor.Database{Pool: pool, Schemas: f.schemas, Role: f.role, ProducerGroup: f.producerGroup, PoolSize: size})
	}
	if nameServers != "" {
		tls, err := app.TLSFromEnv(os.Getenv)
		if err != nil {
			return c, closePools, err
		}
		profile, err := app.ProfileFromEnv(os.Getenv)
		if err != nil {
			return c, closePools, err
		}
		c.Broker = &doctor.Broker{
			Unlisted:    profile.RefusesListing(),
			NameServers: strings.Split(nameServers, ";"), Namespace: cmp.Or(f.namespace, os.Getenv(app.EnvNamespace)),
			AccessKey: os.Getenv(app.EnvAccessKey), SecretKey: os.Getenv(app.EnvSecretKey), TLS: tls,
		}
	}
	for _, text := range f.sagas {
		name, version, _ := strings.Cut(text, "=")
		n, err := strconv.Atoi(version)
		if err != nil || name == "" {
			return c, closePools, usagef("--saga %q: want name=version", text)
		}
		f.expect.Sagas = append(f.expect.Sagas, doctor.SagaVersion{Name: name, Version: n})
	}
	c.Pre, c.Probe, c.Only, c.Skip = f.pre, f.probe, f.only, f.skip
	c.Timeout, c.CheckTimeout, c.Expect = f.timeout, f.checkTimeout, f.expect
	return c, closePools, nil
}

func (f *doctorFlags) printList(w io.Writer) error {
	if f.json {
		return printJSON(w, doctor.Checks())
	}
	table := newTable(w, "", "CODE", "SEVERITY", "PRE", "IS OK IF")
	for _, c := range doctor.Checks() {
		pre := "-"
		if c.Pre {
			pre = "yes"
		}
		table.row(c.Code, string(c.Severity), pre, c.Title)
	}
	return table.flush()
}

func (f *doctorFlags) print(w io.Writer, r *doctor.Report) error {
	if f.json {
		return printJSON(w, r)
	}
	findings, unknown := byUrgency(r.Findings()), r.Unknown()
	if len(findings) > 1 {
		if err := printOverview(w, findings); err != nil {
			return err
		}
	}
	for _, result := range findings {
		printFinding(w, result)
	}
	printUnknown(w, unknown)
	if f.all {
		fmt.Fprintln(w, "ok")
		table := newTable(w, "  ")
		for _, result := range r.Results {
			if result.Status == doctor.OK {
				table.row(result.Code, result.Subject, result.Observed)
			}
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s, %d not known, %d ok\n", plural(len(findings), "finding"), len(unknown), len(r.Results)-len(findings)-len(unknown))
	return err
}

// maxOverview is how many findings of one check the overview lists, so that one check that finds much doesn't hide the others.
const maxOverview = 3

// printOverview prints a line for each finding, which together fit on a screen.
func printOverview(w io.Writer, findings []doctor.Result) error {
	found, listed := map[string]int{}, map[string]int{} // by the check's code
	for _, r := range findings {
		found[r.Code]++
	}
	table := newTable(w, "")
	for _, r := range findings {
		switch listed[r.Code]++; {
		case listed[r.Code] <= maxOverview:
			table.row(strings.ToUpper(string(r.Severity)), r.Code, short(r.Observed))
		case listed[r.Code] == maxOverview+1:
			table.row(strings.ToUpper(string(r.Severity)), r.Code, fmt.Sprintf("… and %d more", found[r.Code]-maxOverview))
		}
	}
	if err := table.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// byUrgency puts critical findings first and, of equal severity, work that stands still before settings.
func byUrgency(findings []doctor.Result) []doctor.Result {
	settings := func(r doctor.Result) int {
		switch r.Group {
		case doctor.Outbox, doctor.Consumers, doctor.Flows:
			return 0
		}
		return 1
	}
	slices.SortStableFunc(findings, func(a, b doctor.Result) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(settings(a), settings(b))) // critical is before warning
	})
	return findings
}

func printFinding(w io.Writer, r doctor.Result) {
	fmt.Fprintf(w, "%s  %s  %s\n", strings.ToUpper(string(r.Severity)), r.Code, r.Subject)
	fmt.Fprintf(w, "  seen    %s\n", r.Observed)
	if r.Needed != "" {
		fmt.Fprintf(w, "  needed  %s\n", r.Needed)
	}
	printMend(w, r.Mend)
	fmt.Fprintf(w, "  see     %s\n\n", r.Docs)
}

func printMend(w io.Writer, mend string) {
	head := "mend"
	for line := range strings.Lines(mend) {
		fmt.Fprintf(w, "  %-6s  %s\n", head, printable.Line(strings.TrimRight(line, "\n"), maxCell))
		head = ""
	}
}

// printUnknown prints what is not known: once for each reason, with the checks that it stopped.
func printUnknown(w io.Writer, results []doctor.Result) {
	type cause struct{ subject, reason, mend string }
	var causes []cause
	checks := map[cause][]string{}
	for _, r := range results {
		c := cause{r.Subject, r.Observed, r.Mend}
		if checks[c] == nil {
			causes = append(causes, c)
		}
		checks[c] = append(checks[c], r.Code)
	}
	for _, c := range causes {
		fmt.Fprintf(w, "NOT KNOWN  %s\n", c.subject)
		fmt.Fprintf(w, "  why     %s\n", c.reason)
		printMend(w, c.mend)
		fmt.Fprintf(w, "  checks  %s\n\n", strings.Join(checks[c], ", "))
	}
}
