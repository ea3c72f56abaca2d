package guards

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/testdb"
)

// guard is a piece of production code without which a promise breaks.
type guard struct {
	name     string
	file     string // from the module's root
	old, new string // new is run where off is true
}

// guards are the guards to remove. %s in new is the condition under which a guard is off.
var guards = []guard{
	{"visible", "outbox/checkback.go", // a half message is committed for a visible row alone
		`if err == nil && found.recorded && ours && !found.acked && !found.replica {`,
		`if err == nil && (found.recorded && ours || %s) && !found.acked && !found.replica {`},
	{"acked", "outbox/checkback.go", // the check looks the ack up
		`|| OFF_VISIBLE) && !found.acked && !found.replica {`,
		`|| OFF_VISIBLE) && (!found.acked || %s) && !found.replica {`},
	{"check", "outbox/checkback.go", // check-backs are decided
		`if !r.checking.begin(event.ID) {`,
		`if %s || !r.checking.begin(event.ID) {`},
	{"unknown-rollback", "outbox/publication.go", // nothing is ended after a COMMIT whose outcome is unknown
		"	case lazytx.NotCommitted(err):\n		p.abandon(ctx)\n	default:\n		p.unknown()\n",
		"	case lazytx.NotCommitted(err) || %s:\n		p.abandon(ctx)\n	default:\n		p.unknown()\n"},
	{"unknown-commit", "outbox/publication.go",
		"	default:\n		p.unknown()\n",
		"	default:\n		if %s {\n			p.finish(ctx)\n		}\n		p.unknown()\n"},
	{"sweep", "outbox/sweep.go", // owed events are found and sent
		"		page, err := s.readPage(ctx, state.progress, after, size)\n",
		"		page, err := s.readPage(ctx, state.progress, after, size)\n		if %s {\n			page = nil\n		}\n"},
	{"watermark", "outbox/sweep.go", // the sweep's watermark waits for open transactions
		"	seen, recheck := state.now.xmax, slices.Clone(state.now.xip)\n",
		"	seen, recheck := state.now.xmax, slices.Clone(state.now.xip)\n	if %s {\n		recheck = nil\n	}\n"},
	{"lease", "outbox/sweep.go", // the lease of a frozen process ends
		`func (s *sweeper) ttl() time.Duration { return max(leaseTTL, 3*s.outbox.config.SweepInterval) }`,
		"func (s *sweeper) ttl() time.Duration {\n	if %s {\n		return 1000 * time.Hour\n	}\n	return max(leaseTTL, 3*s.outbox.config.SweepInterval)\n}"},
	{"rows", "outbox/join.go", // events of a joined transaction are sent only if their row is committed
		`return committed[e.ID] })`,
		`return committed[e.ID] || %s })`},
	{"settle", "outbox/transaction.go", // rows are looked up before the commit, too, if there is an AfterCommit function
		`	if len(left) < len(ids) {`,
		`	if len(left) < len(ids) && !%s {`},
	{"after", "outbox/transaction.go", // and AfterCommit is called for the parts that committed
		`return c.marker != "" && !has[c.marker] })`,
		`return c.marker != "" && !has[c.marker] && !%s })`},
	{"inbox", "handlers/decision.go", // an event without order is run once
		`case s.entry == nil || !s.entry.Fresh:`,
		`case (s.entry == nil || !s.entry.Fresh) && !%s:`},
	{"link", "handlers/decision.go", // an event waits for its predecessor
		`case at.Last > 0 && e.Previous <= at.Last:`,
		`case at.Last > 0 && (e.Previous <= at.Last || %s):`},
	{"position", "handlers/decision.go", // and is not run when its stream has gone on
		"	case e.Sequence <= at.Last:\n		return duplicate\n",
		"	case e.Sequence <= at.Last && !%s:\n		return duplicate\n"},
	{"registered", "handlers/decision.go", // a type that another process handles is left to that
		`case !r.handled && !r.recorded:`,
		`case !r.handled && (!r.recorded || %s):`},
	{"fork", "handlers/decision.go", // an event passes a parked one whose predecessor is lost
		`return e.Previous <= at.Last && at.HeadPrevious > at.Last`,
		`return !%s && e.Previous <= at.Last && at.HeadPrevious > at.Last`},
	{"clock", "handlers/retention.go", // ages are judged by Postgres' clock
		"	return now, nil\n",
		"	if %s {\n		now = r.cfg.Clock.Now()\n	}\n	return now, nil\n"},
	{"deadline", "handlers/call.go", // a handler that ignores its deadline is abandoned and reported
		"	grace := time.NewTimer(c.cfg.unresponsiveAfter)\n",
		"	if %s {\n		return <-returned\n	}\n	grace := time.NewTimer(c.cfg.unresponsiveAfter)\n"},
}

// offVariable lists, for the changed program, the guards that are off.
const offVariable = "ROCKETFLOW_CHAOS_OFF"

const switches = `package %s

import (
	"os"
	"strings"
)

func switchedOff(guard string) bool { return strings.Contains(os.Getenv(%q), "/"+guard+"/") }
`

// build builds the driver with a switch at each guard. It fails where a guard isn't found in the sources any more.
func build(t *testing.T) (program string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	sources := map[string]string{}
	for _, g := range guards {
		if _, ok := sources[g.file]; !ok {
			text, err := os.ReadFile(filepath.Join(root, g.file))
			if err != nil {
				t.Fatal(err)
			}
			sources[g.file] = string(text)
		}
		off := fmt.Sprintf("switchedOff(%q)", g.name)
		visible := strings.NewReplacer("OFF_VISIBLE", `switchedOff("visible")`)
		before, after := visible.Replace(g.old), visible.Replace(fmt.Sprintf(g.new, off))
		if n := strings.Count(sources[g.file], before); n != 1 {
			t.Fatalf("guard %s: %s has this %d times, want once; if the guard has moved, follow it:\n%s", g.name, g.file, n, before)
		}
		sources[g.file] = strings.Replace(sources[g.file], before, after, 1)
	}
	write := func(file, text string) {
		t.Helper()
		copied := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = copied
	}
	for file, text := range sources {
		write(file, text)
	}
	for _, name := range []string{"outbox", "handlers"} {
		write(name+"/switches.go", fmt.Sprintf(switches, name, offVariable))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "chaos")
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./test/chaos")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// tries is how many seeds are tried: a seed determines the steps, not their timing.
const tries = 3

// TestChaosFindsWhatEachGuardPrevents runs chaos without a guard, and without the guards that cover for it.
func TestChaosFindsWhatEachGuardPrevents(t *testing.T) {
	t.Parallel()
	database := testdb.URL(t)
	program := build(t)
	type removed struct {
		off    string // the guard, and what covers for it
		faults string // the kinds of faults that are on
		want   string // what is found: lost, doubled or misordered; or failed, where it is none of these
		seed   int
	}
	find := func(c removed) {
		t.Run(c.off, func(t *testing.T) {
			var out string
			for try := range tries {
				seed := strconv.Itoa(c.seed + 1000*try)
				args := []string{"-database", database, "-seed", seed, "-faults", c.faults, "-workers", "2", "-duration", "90s", "-patience", "2s", "-find", c.want} // ends with what it finds
				if c.want == "failed" {
					args = append(args[:len(args)-2], "-stop")
				}
				out = runChaos(t, program, c.off, args...)
				if figure(t, out, c.want) > 0 {
					return
				}
			}
			t.Errorf("nothing was %s:\n%s", c.want, out)
		})
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() { find(removed{"deadline", "hang", "failed", 1}) }) // waits for a minute
	for _, c := range []removed{
		{"visible", "none", "doubled", 8},
		{"unknown-commit", "none", "doubled", 1},
		{"unknown-rollback sweep", "none", "lost", 1},
		{"sweep", "none", "lost", 2},
		{"watermark check", "none", "lost", 1015},
		{"inbox", "none", "doubled", 1},
		{"link", "none", "lost", 1},
		{"link position", "none", "misordered", 1},
		{"registered", "deploy", "lost", 1},
		{"rows settle", "join", "doubled", 1},
		{"after", "join", "doubled", 1},
		{"lease", "freeze", "failed", 1},
		{"clock", "skew", "doubled", 1},
		{"fork", "failover", "lost", 1},
	} {
		find(c) // one after the other: what is found depends on who is fast
	}
	// The acknowledgement that a check-back reads prevents duplicates at the broker after it has forgotten that it delivered. The
	// inbox would drop them.
	for _, c := range []struct {
		off    string
		copies bool
	}{{"", false}, {"acked", true}} {
		t.Run("copies "+c.off, func(t *testing.T) {
			var out string
			var n int
			for try := 0; try == 0 || try < tries && n > 0 != c.copies; try++ {
				out = runChaos(t, program, c.off, "-database", database, "-seed", strconv.Itoa(1+1000*try), "-schedules", "2", "-workers", "1", "-inject", "markers")
				n = figure(t, out, "copies")
			}
			if n > 0 != c.copies {
				t.Errorf("%d copies at the broker:\n%s", n, out)
			}
			if n := figure(t, out, "lost") + figure(t, out, "doubled") + figure(t, out, "misordered"); n != 0 {
				t.Errorf("more than copies:\n%s", out)
			}
		})
	}
}

// runChaos runs chaos with guards off and returns its output.
func runChaos(t *testing.T, program, off string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	began := time.Now()
	cmd.Env = append(os.Environ(), offVariable+"=/"+strings.ReplaceAll(off, " ", "/")+"/")
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatalf("%v\n%s", err, out)
	}
	last := strings.LastIndex(strings.TrimSpace(string(out)), "\n") + 1
	t.Logf("%v: %s", time.Since(began).Round(100*time.Millisecond), out[last:])
	return string(out)
}

// figure reads one of the figures of the summary.
func figure(t *testing.T, out, name string) int {
	t.Helper()
	found := regexp.MustCompile(`(?m)\b`+name+`=(\d+)`).FindAllStringSubmatch(out, -1)
	if len(found) == 0 {
		t.Fatalf("no %s= in:\n%s", name, out)
	}
	n, _ := strconv.Atoi(found[len(found)-1][1])
	return n
}
