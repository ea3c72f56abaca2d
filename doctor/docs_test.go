package doctor

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

var update = flag.Bool("update", false, "write docs/doctor.md")

const docsFile = "../docs/doctor.md"

// docs/doctor.md is made of the checks: go test ./doctor -run TestDocs -update
func TestDocs(t *testing.T) {
	t.Parallel()
	want := docs()
	if *update {
		if err := os.WriteFile(docsFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/doctor.md is not that of the checks: run go test ./doctor -run TestDocs -update")
	}
}

const docsHead = `# rocketflow doctor

<!-- made by go test ./doctor -run TestDocs -update from the checks in package doctor -->

` + "`rocketflow doctor`" + ` looks for settings under which rocketflow's promises don't hold, and for work that stands still. Each check
says one of three things about each thing that it looks at:

- **ok**: it looked and found nothing;
- **a finding**: with what was seen, what is needed, and the command or SQL that mends it;
- **not known**: it could not look, because a server is away, a right is missing, or nobody said what is needed. That is never shown
  as ok.

` + "```sh" + `
rocketflow doctor                                # all of $DATABASE_URL and $ROCKETMQ_NAMESRV
rocketflow doctor --pre --namesrv mq:9876        # before installing: what needs no tables
rocketflow doctor --only consumers --all --json  # a group or a check; what is ok, too; for programs
rocketflow doctor --skip broker-durability       # a risk that was accepted
` + "```" + `

The exit code is 0 if all is ok, 1 if there are findings, and 2 if there are none but something is not known. A critical finding means
that a promise doesn't hold or that something stands still; a warning, that a promise doesn't hold under a fault that may come, or
that something is slower than it must be.

It reads only: in read-only transactions with a timeout, with queries that use indexes or end at a limit, and with requests to brokers
that change nothing. ` + "`--probe`" + ` alone sends something: see [broker-permission](#broker-permission). It shows no password, no secret key, no
body of an event, and no statement of the application.

## Rights

What a right is missing for is not known, and the answer names the right. All is known with:

- ` + "`USAGE`" + ` on the schemas and ` + "`SELECT`" + ` on their tables;
- ` + "`pg_read_all_stats`" + `, to see the transactions of other roles;
- at a RocketMQ 5 with ACL: ` + "`Sub`" + ` and ` + "`Get`" + ` on the topics (` + "`" + remoting.HalfTopic + "`" + ` and ` + "`%DLQ%…`" + ` too) and on the groups, and ` + "`Get`" + ` on the
  cluster: ` + "`mqadmin createAcl -s User:doctor -r 'Topic:*,Group:*,Cluster:*' -a Sub,Get -d Allow`" + `. Settings and state any user may read.
  ` + "`--probe`" + ` runs as a user that may publish: the service's own.

## Behind a proxy, and in a cloud

With ROCKETMQ_PROFILE (` + "`doctor.Broker.Unlisted`" + `) set to a [kind of RocketMQ](clouds.md) that doesn't list its brokers, nobody can ask these for
their settings, state and members. What such a check would look at is not known, with the profile's reason and what to do instead: run
the doctor where the name servers behind the proxy can be reached, or see with the vendor's tools. Topics that are missing, and queues that
can't be read or written, are found by their routes all the same. ` + "`--skip broker`" + ` leaves out what will never be known.

## In a service

A ` + "`doctor.Doctor`" + ` examines again and again between its Start and its Stop, and logs findings that are new or gone. Its last report is
exported by ` + "`metrics.ObserveDoctor`" + ` as ` + "`rocketflow_doctor_finding{code,severity}`" + ` and ` + "`rocketflow_doctor_unknown{code}`" + `.

`

// docs returns the text of docs/doctor.md.
func docs() string {
	var b strings.Builder
	b.WriteString(docsHead)
	b.WriteString("## Checks\n\n| code | severity | before installing | ok if |\n| --- | --- | --- | --- |\n")
	for _, c := range Checks() {
		pre := ""
		if c.Pre {
			pre = "yes"
		}
		fmt.Fprintf(&b, "| [%s](#%[1]s) | %s | %s | %s |\n", c.Code, c.Severity, pre, c.Title)
	}
	group := Group("")
	names := map[Group]string{Host: "Host", Postgres: "PostgreSQL", RocketMQ: "Broker", Outbox: "Outbox", Consumers: "Consumers", Flows: "Sagas and timeouts"}
	for _, c := range Checks() {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(&b, "\n## %s\n", names[group])
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s. (%s)\n\n%s\n", c.Code, c.Title, c.Severity, c.About)
	}
	return b.String()
}

// Each check is described, and its code says its group.
func TestEachCheckIsDescribed(t *testing.T) {
	t.Parallel()
	prefixes := map[Group]string{Host: "host-", Postgres: "postgres-", RocketMQ: "broker-", Outbox: "outbox-", Consumers: "consumer-", Flows: ""}
	code := regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	seen := map[string]bool{}
	for _, k := range all {
		looks := 0
		for _, set := range []bool{k.host != nil, k.database != nil, k.schema != nil, k.cluster != nil} {
			if set {
				looks++
			}
		}
		switch {
		case !code.MatchString(k.Code), !strings.HasPrefix(k.Code, prefixes[k.Group]), seen[k.Code]:
			t.Errorf("code %q", k.Code)
		case k.Severity != Critical && k.Severity != Warning:
			t.Errorf("%s: severity %q", k.Code, k.Severity)
		case k.Title == "" || strings.HasSuffix(k.Title, ".") || !strings.Contains(k.About, "\n\nMend: "):
			t.Errorf("%s is not described", k.Code)
		case looks != 1:
			t.Errorf("%s has %d functions", k.Code, looks)
		case k.Pre && k.schema != nil:
			t.Errorf("%s needs a schema, which isn't there before the installation", k.Code)
		}
		seen[k.Code] = true
	}
}
