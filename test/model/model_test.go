// Package model tests a model of the outbox's protocol, Outbox.tla, with the model checker TLC.
package model

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
)

const (
	safety   = "INVARIANTS OutIsCommitted AckedIsOut EffectOnce EffectsInOrder"
	liveness = "PROPERTIES CommittedIsHandled"
	doubles  = "PROPERTIES NoDoubleFromRepeatedCheck"
)

var (
	// As in Outbox.cfg, but small: duplicates aren't counted, and the broker gives half messages up without check-backs.
	one = constants{"MaxChecks": "0", "MaxCopies": "1", "MaxFaults": "1"}
	// No fault, but processes may stop for ever, transactions may abort and half messages be given up.
	two = one.with("Events", "{1, 2}").with("MaxFaults", "0")
)

func TestTheModelKeepsThePromises(t *testing.T) {
	for _, test := range []struct {
		name      string
		constants constants
		check     string
	}{
		{"two events, one fault", two.with("MaxChecks", "1").with("MaxFaults", "1"), safety},
		{"two events, liveness", two, liveness},
		{"three events, order", two.with("Events", "{1, 2, 3}").with("Off", `{"sweep"}`), safety},
		{"one event, every fault", nil, safety + "\n" + liveness + " NoDoubleFromRepeatedCheck"},
		{"one event, ack not looked up", constants{"MaxCopies": "1", "MaxChecks": "1", "Off": `{"ack"}`}, safety + "\n" + liveness},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if out, err := tlc(t, test.constants, test.check, "-XX:+UseParallelGC"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestTheModelBreaksWithoutEachGuard removes one guard after the other from the model and checks that the promise that depends
// on it breaks.
func TestTheModelBreaksWithoutEachGuard(t *testing.T) {
	const broken = "Temporal properties were violated"
	for _, test := range []struct {
		guard     string
		constants constants
		check     string
		want      string
	}{
		{"visible row", nil, "INVARIANT OutIsCommitted", "Invariant OutIsCommitted is violated"},
		{"unknown", nil, "INVARIANT OutIsCommitted", "Invariant OutIsCommitted is violated"},
		{"look up", one, "INVARIANT OutIsCommitted", "Invariant OutIsCommitted is violated"},
		{"response", nil, "INVARIANT AckedIsOut", "Invariant AckedIsOut is violated"},
		{"response", one, liveness, broken},
		{"sweep", one, liveness, broken},
		{"watermark", two, liveness, broken},
		{"inbox", nil, "INVARIANT EffectOnce", "Invariant EffectOnce is violated"},
		{"link", two, "INVARIANT EffectsInOrder", "Invariant EffectsInOrder is violated"},
		{"ack", nil, doubles, "Action property NoDoubleFromRepeatedCheck is violated"},
	} {
		property := test.check[strings.LastIndexByte(test.check, ' ')+1:]
		t.Run(test.guard+"/"+property, func(t *testing.T) {
			t.Parallel()
			out, err := tlc(t, test.constants.with("Off", `{"`+test.guard+`"}`), test.check, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC") // too short for the JVM's better compiler
			switch {
			case err == nil:
				t.Errorf("%s holds without it", property)
			case !strings.Contains(out, test.want):
				t.Errorf("%v, want %q\n%s", err, test.want, out)
			case testing.Verbose():
				t.Log(out)
			}
		})
	}
}

type constants map[string]string

func (c constants) with(name, value string) constants {
	other := constants{name: value}
	for n, v := range c {
		if n != name {
			other[n] = v
		}
	}
	return other
}

var checks = regexp.MustCompile(`(?m)^(INVARIANTS|PROPERTIES) .*\n`)

// tlc checks the model with other constants than those of Outbox.cfg.
func tlc(t *testing.T, c constants, check string, jvm ...string) (string, error) {
	java, jar := tools(t)
	config, err := os.ReadFile("Outbox.cfg")
	if err != nil {
		t.Fatal(err)
	}
	config = append(checks.ReplaceAll(config, nil), check+"\n"...)
	for name, value := range c {
		line := regexp.MustCompile(`(?m)^    ` + name + ` = .*$`)
		if !line.Match(config) {
			t.Fatalf("Outbox.cfg has no constant %s", name)
		}
		config = line.ReplaceAll(config, []byte("    "+name+" = "+value))
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "Outbox.cfg")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 35*time.Minute) // it may get few processors
	defer cancel()
	// TLC has been seen to wait for its worker, and the worker for it, for ever (StateQueue.suspendAll and isAvail) when it stopped the
	// worker for a checkpoint or a check of liveness in between. So there are none: liveness is checked at the end, and a run is short.
	cmd := exec.CommandContext(ctx, java, append(jvm, "-Xmx1g", "-Djava.io.tmpdir="+dir, "-cp", jar, "tlc2.TLC",
		"-checkpoint", "0", "-lncheck", "final", "-deadlock", "-metadir", filepath.Join(dir, "states"), "-config", path, "Outbox.tla")...)
	out, err := cmd.CombinedOutput()
	if m := states.FindSubmatch(out); m != nil {
		t.Logf("%s states", m[1])
	}
	return string(out), err
}

var states = regexp.MustCompile(`generated, (\d+) distinct states found, 0 states left`)

func tools(t *testing.T) (java, jar string) {
	t.Helper()
	java, jar, err := devstack.TLC(t.Context())
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return java, jar
}
