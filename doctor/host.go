package doctor

import (
	"context"
	"fmt"
	"time"
)

var hostChecks = []check{
	{
		Check: Check{Code: "host-clock", Group: Host, Severity: Warning, Pre: true,
			Title: "The clocks of this host, of Postgres and of each broker agree",
			About: `Compares the clocks with that of the host that the doctor runs on. A broker tells its time to a second only, so a difference of less than that isn't seen.

A producer's clock that is ahead of the broker's makes the broker check half messages back at once. A broker's clock that is behind that of Postgres fires timers late; one that is ahead fires them early, and the event is then held back until the timeout is due by Postgres' clock. Ids of events get their day from the host's clock, and partitions from Postgres'.

Mend: run a time service (chrony, systemd-timesyncd) on the machine that is off, and let it correct the clock slowly.`},
		host: hostClock,
	},
}

// reading is how far the host's clock is behind another one.
type reading struct {
	of            string
	lag, accuracy time.Duration
}

func hostClock(_ context.Context, x *examination) (results []Result) {
	var readings []reading
	for _, d := range x.databases {
		if d.err != nil {
			results = append(results, unknown("%s", reason(d.err)).about("clock of "+d.name))
			continue
		}
		readings = append(readings, reading{d.name, d.lag, d.accuracy})
	}
	if x.cluster != nil {
		if x.cluster.err != nil {
			results = append(results, unknown("%s", reason(x.cluster.err)).about("clock of "+x.cluster.name))
		}
		for _, b := range x.cluster.brokers {
			subject := "broker " + b.name
			switch {
			case b.err != nil:
				results = append(results, unknown("%s", reason(b.err)).about("clock of "+subject))
			case b.accuracy == 0 && b.stateErr != nil:
				results = append(results, unknown("the broker's state can't be read: %s", reason(b.stateErr)).about("clock of "+subject))
			case b.accuracy == 0:
				results = append(results, unknown("the broker doesn't say its time").about("clock of "+subject))
			default:
				readings = append(readings, reading{subject, b.lag, b.accuracy})
			}
		}
	}
	if len(readings) == 0 && len(results) == 0 {
		return one(unknown("there is no other clock to compare with: name a database or a broker"))
	}
	most := x.config.Expect.MaxSkew
	for _, r := range readings {
		results = append(results, r.judge(most))
	}
	// Two clocks may each be nearly right and yet be too far apart.
	for i, a := range readings {
		for _, b := range readings[i+1:] {
			apart := reading{a.of + " and " + b.of, b.lag - a.lag, a.accuracy + b.accuracy}
			if r := apart.judge(most); r.Status == Finding && a.judge(most).Status == OK && b.judge(most).Status == OK {
				r.Observed = fmt.Sprintf("the two are %s apart", about(apart.lag))
				results = append(results, r)
			}
		}
	}
	return results
}

// judge returns a finding if the clocks are certainly too far apart.
func (r reading) judge(most time.Duration) Result {
	position := fmt.Sprintf("%s ahead of this host's", about(r.lag))
	if r.lag < 0 {
		position = fmt.Sprintf("%s behind this host's", about(r.lag))
	}
	observed := fmt.Sprintf("the clock is %s, to within %s", position, r.accuracy.Round(time.Millisecond))
	if r.lag.Abs()-r.accuracy <= most {
		return ok("%s", observed).about("clock of " + r.of)
	}
	return found(observed, fmt.Sprintf("at most %s apart", most), "# on the machine whose clock is off:\ntimedatectl set-ntp true").about("clock of " + r.of)
}

// about returns the length of a duration to a few digits.
func about(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int64(d.Round(24*time.Hour)/(24*time.Hour)))
}
