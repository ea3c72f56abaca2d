package rocketmq

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

// Each fact of each profile has a source, and one from a vendor's documents has the page's address.
func TestFactsHaveSources(t *testing.T) {
	t.Parallel()
	if len(facts) != len(Profiles()) {
		t.Errorf("%d profiles in the table, %d in Profiles", len(facts), len(Profiles()))
	}
	for _, p := range Profiles() {
		v := reflect.ValueOf(p.Facts())
		for i := range v.NumField() {
			s := v.Field(i).FieldByName("Source").Interface().(Source)
			switch {
			case s.Text == "":
				t.Errorf("%s: %s has no source", p, v.Type().Field(i).Name)
			case s.Basis == Documented && p != Proxy5 && p != Apache4 && !strings.Contains(s.Text, "https://"):
				t.Errorf("%s: the source of %s is no page: %s", p, v.Type().Field(i).Name, s.Text)
			case s.Basis != Tried && s.Basis != Documented && s.Basis != Assumed:
				t.Errorf("%s: basis %q of %s", p, s.Basis, v.Type().Field(i).Name)
			}
		}
	}
}

// Nobody has tried a cloud here, so no fact of one says so.
func TestFactsOfCloudsAreNotTried(t *testing.T) {
	t.Parallel()
	for _, p := range []Profile{ApsaraMQ5, HuaweiDMS4, HuaweiDMS5, TencentTDMQ} {
		v := reflect.ValueOf(p.Facts())
		for i := range v.NumField() {
			if s := v.Field(i).FieldByName("Source").Interface().(Source); s.Basis == Tried {
				t.Errorf("%s: %s is tried on %s", p, v.Type().Field(i).Name, s.Text)
			}
		}
	}
}

func TestParseProfile(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Profile{"": Apache5, "apache5": Apache5, "Proxy5": Proxy5, "HuaweiDMS4": HuaweiDMS4} {
		if got, err := ParseProfile(name); err != nil || got != want {
			t.Errorf("%q: got %v, %v", name, got, err)
		}
	}
	if _, err := ParseProfile("kafka"); err == nil || !strings.Contains(err.Error(), "tencenttdmq") {
		t.Errorf("got %v, want an error that lists the profiles", err)
	}
}

// What each profile refuses, and that every refusal names the profile and a source.
func TestProfilesRefuse(t *testing.T) {
	t.Parallel()
	type can struct{ halves, timers, create, begin, clientGo bool }
	for p, want := range map[Profile]can{
		Apache5:     {true, true, true, true, true},
		Apache4:     {true, false, true, true, true},
		Proxy5:      {false, false, false, true, false},
		ApsaraMQ5:   {false, false, false, true, true},
		HuaweiDMS4:  {true, true, false, false, true},
		HuaweiDMS5:  {false, false, false, true, true},
		TencentTDMQ: {false, false, false, true, true},
	} {
		errs := []error{p.RefusesHalfMessages(), p.RefusesTimers(), p.RefusesCreatingTopics(), p.refusesBegin(broker.BeginNewest()), p.RefusesTransport(ClientGo)}
		if got := (can{errs[0] == nil, errs[1] == nil, errs[2] == nil, errs[3] == nil, errs[4] == nil}); got != want {
			t.Errorf("%s: %+v, want %+v", p, got, want)
		}
		if p.refusesBegin(broker.BeginOldest()) != nil || p.RefusesTransport(Own) != nil {
			t.Errorf("%s refuses the oldest message or the own transport", p)
		}
		for _, err := range errs {
			if err != nil && (!strings.Contains(err.Error(), "profile "+p.String()) || !strings.Contains(err.Error(), ": ")) {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
}

func TestProfileDecidesOtherFields(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field  string
		config Config
	}{
		{"Transport", Config{Profile: Proxy5, Transport: ClientGo}},
		{"TimerHorizon", Config{Profile: Apache4, TimerHorizon: time.Hour}},
		{"TimerHorizon", Config{Profile: HuaweiDMS4, TimerHorizon: 366 * 24 * time.Hour}},
		{"Namespace", Config{Profile: ApsaraMQ5, Namespace: "ns"}},
	} {
		c.config.NameServers, c.config.Service = []string{"h:1"}, "s"
		var field *rocketflow.FieldError
		if err := c.config.withDefaults().validate(); !errors.As(err, &field) || field.Field != "rocketmq.Config."+c.field || !strings.Contains(field.Reason, "profile "+c.config.Profile.String()) {
			t.Errorf("%s of %s: got %v", c.field, c.config.Profile, err)
		}
	}
	long := Config{NameServers: []string{"h:1"}, Service: "s", TimerHorizon: 366 * 24 * time.Hour} // a broker may be set so
	if err := long.withDefaults().validate(); err != nil {
		t.Error(err)
	}
}

// Limits of sizes and names are checked before anything is sent.
func TestProfileLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		profile Profile
		kind    bodyKind
		size    int
		ok      bool
	}{
		{Apache5, plainBody, 100 << 20, true},
		{ApsaraMQ5, plainBody, 4 << 20, true},
		{ApsaraMQ5, plainBody, 4<<20 + 1, false},
		{ApsaraMQ5, specialBody, 64 << 10, true},
		{ApsaraMQ5, specialBody, 64<<10 + 1, false},
	} {
		if err := c.profile.checkBody(c.kind, c.size); (err == nil) != c.ok || err != nil && !errors.Is(err, broker.ErrTooLarge) {
			t.Errorf("%s, %v, %d bytes: %v", c.profile, c.kind, c.size, err)
		}
	}
	for _, c := range []struct {
		profile Profile
		name    string
		ok      bool
	}{
		{Apache5, strings.Repeat("x", 127), true},
		{Apache5, strings.Repeat("x", 128), false},
		{Apache5, "a.b", false},
		{Apache5, "", false},
		{Apache5, "ns%a|b_-Z9", true},
		{ApsaraMQ5, strings.Repeat("x", 60), true},
		{ApsaraMQ5, strings.Repeat("x", 61), false},
		{ApsaraMQ5, "ns%a", false},
		{HuaweiDMS5, "ab", false},
		{HuaweiDMS5, "abc%", true},
	} {
		if err := c.profile.checkTopic(c.name); (err == nil) != c.ok || err != nil && !errors.Is(err, broker.ErrIllegal) {
			t.Errorf("%s: %q: %v", c.profile, c.name, err)
		}
	}
}

const cloudsFile = "../docs/clouds.md"

// The tables of docs/clouds.md are those of the profiles. ROCKETFLOW_UPDATE=1 writes them.
func TestCloudsDocument(t *testing.T) {
	document, err := os.ReadFile(cloudsFile)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- facts: begin -->\n", "<!-- facts: end -->\n"
	before, rest, ok := strings.Cut(string(document), begin)
	_, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no part for the facts", cloudsFile)
	}
	want := before + begin + factTables() + end + after
	if string(document) == want {
		return
	}
	if os.Getenv("ROCKETFLOW_UPDATE") == "" {
		t.Fatalf("%s differs from the profiles: run this test with ROCKETFLOW_UPDATE=1", cloudsFile)
	}
	if err := os.WriteFile(cloudsFile, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// factNames are the rows of the tables, in the order of the fields of Facts.
var factNames = map[string]string{
	"ListsBrokers": "the cluster can be asked for its brokers", "NeedsBrokerName": "requests must name the broker", "CreatesTopics": "a client may create topics",
	"CreatesGroups": "groups come into being by themselves", "TopicTypes": "topics have types", "TypesAreChecked": "a topic takes one type only",
	"ShardingKeyIsAType": "SHARDING_KEY is in the way", "HalfMessages": "half messages", "ConfirmsEnds": "their ends are confirmed", "BeginsAtNewest": "a new group can begin at the newest",
	"Batches": "several messages in a request", "MaxBody": "largest body", "MaxSpecialBody": "largest body of half messages and timers", "Timers": "timers: property, cancel property",
	"Horizon": "timers: horizon", "Precision": "timers: precision", "TopicNames": "names of topics", "GroupNames": "names of groups",
}

// factTables returns a table of each profile's facts.
func factTables() string {
	var b strings.Builder
	for _, p := range Profiles() {
		fmt.Fprintf(&b, "\n### %s\n\n| | | | source |\n| --- | --- | --- | --- |\n", p)
		v := reflect.ValueOf(p.Facts())
		for i := range v.NumField() {
			source := v.Field(i).FieldByName("Source").Interface().(Source)
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", factNames[v.Type().Field(i).Name], factText(v.Field(i).FieldByName("Is").Interface()), source.Basis,
				strings.ReplaceAll(source.Text, "|", `\|`))
		}
	}
	b.WriteString("\n")
	return b.String()
}

func factText(value any) string {
	switch v := value.(type) {
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case int:
		switch {
		case v == 0:
			return "by setting"
		case v%mib == 0:
			return fmt.Sprintf("%d MiB", v/mib)
		}
		return fmt.Sprintf("%d KiB", v/kib)
	case time.Duration:
		switch {
		case v == 0:
			return "-"
		case v >= 2*day*2:
			return fmt.Sprintf("%d days", v/day)
		}
		return strings.TrimSuffix(strings.TrimSuffix(v.String(), "0s"), "0m")
	case TimerFormat:
		switch {
		case v.Deliver == "":
			return "none"
		case v.Cancel == "":
			return v.Deliver + ", none"
		}
		return v.Deliver + ", " + v.Cancel
	case NameRule:
		return fmt.Sprintf("%d to %d of `%s`", v.Min, v.Max, strings.ReplaceAll(v.Characters, "|", `\|`))
	}
	return fmt.Sprint(value)
}
