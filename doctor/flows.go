package doctor

import (
	"context"
	"fmt"
	"slices"
)

var flowChecks = []check{
	{
		Check: Check{Code: "timeout-overdue", Group: Flows, Severity: Critical,
			Title: "Due timeouts fire",
			About: `A timeout fires within a second or two of its instant. One that is due for longer (Expect.MaxOverdue, 1 min) is not sent, because no process of the service runs or the broker is away, or its event isn't handled.

Mend: see outbox-sweep and consumer-absent; rocketflow inspect timeouts lists them.`},
		schema: timeoutOverdue,
	},
	{
		Check: Check{Code: "timeout-stuck", Group: Flows, Severity: Critical,
			Title: "The events of timeouts are handled",
			About: `The event of a stuck timeout was sent many times, and no handler took it: nobody consumes its topic and type, or its handler fails, or has no fence (timeout.Scheduler.Fence).

Mend: start the consumer of the timeouts' topic; see consumer-dead-letters for its errors.`},
		schema: timeoutStuck,
	},
	{
		Check: Check{Code: "saga-failed", Group: Flows, Severity: Critical,
			Title: "No saga has failed or expired events",
			About: `An event came before its saga could take it and waited; then its function failed for good, or no state accepted it in time. The event waits for an operator. A failed one holds the later events of its saga.

Mend: find the cause in the error, then retry or discard.`},
		schema: sagaFailed,
	},
	{
		Check: Check{Code: "saga-idle", Group: Flows, Severity: Warning,
			Title: "Running sagas without a deadline change their state",
			About: `A saga has been in one state for longer than a week (Expect.MaxIdleSaga), and no deadline is armed that would move it: it waits for an event that may never come.

Mend: look at what the saga waits for; give the state a deadline in its definition.`},
		schema: sagaIdle,
	},
	{
		Check: Check{Code: "saga-version", Group: Flows, Severity: Critical,
			Title: "Processes register all versions of sagas that still run",
			About: `A saga goes on with the version of its definition that it began with. If no process registers that version any more, its events are parked as unhandled, and its deadlines don't move it.

Which versions are registered is known to a process alone. The doctor of a service knows those of its own process; the command needs --saga name=version for each, Expect.Sagas has those of several processes.

Mend: register the old version until its sagas have finished.`},
		schema: sagaVersion,
	},
}

func timeoutOverdue(ctx context.Context, s *schema) []Result {
	b, err := s.readBacklog(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	now, err := s.database.now(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	longest := s.database.x.config.Expect.MaxOverdue
	if t := b.Timeouts; t.Overdue > 0 && now.Sub(t.OldestDue) > longest {
		return one(found(fmt.Sprintf("%s overdue, the oldest for %s", quantity(t.Overdue, "timeout"), about(now.Sub(t.OldestDue))), "at most "+about(longest), "rocketflow inspect timeouts"+s.flag()))
	}
	return one(ok("%s armed, none overdue for long", quantity(b.Timeouts.Armed, "timeout")))
}

func timeoutStuck(ctx context.Context, s *schema) []Result {
	b, err := s.readBacklog(ctx)
	switch {
	case err != nil:
		return one(s.cannot(err))
	case b.Timeouts.Stuck > 0:
		return one(found(quantity(b.Timeouts.Stuck, "timeout")+" stuck: sent many times, not handled", "a consumer that handles the timeout's event", "rocketflow inspect timeouts"+s.flag()))
	}
	return one(ok("none is stuck"))
}

func sagaFailed(ctx context.Context, s *schema) (results []Result) {
	type failed struct {
		Saga, Status string
		Events       int64
		Key          string
	}
	all, err := list[failed](ctx, s.database, s.sql, "FailedWaiting", maxCount, maxList)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, f := range all {
		results = append(results, found(fmt.Sprintf("%s of saga %s %s, such as one of %s", quantity(f.Events, "event"), f.Saga, f.Status, f.Key), "none",
			fmt.Sprintf("rocketflow inspect saga %s --name %s%s\nrocketflow saga retry %[1]s --name %[2]s%[3]s", shell(f.Key), shell(f.Saga), s.flag())))
	}
	if len(results) == 0 {
		return one(ok("none failed or expired"))
	}
	return results
}

func sagaIdle(ctx context.Context, s *schema) (results []Result) {
	type idle struct {
		Name    string
		Version int
		State   string
		All     bool // there are no more than were looked at
		Sagas   int64
		Key     string
		Age     float64
	}
	longest := s.database.x.config.Expect.MaxIdleSaga
	all, err := list[idle](ctx, s.database, s.sql, "IdleSagas", longest.Seconds(), s.database.x.config.maxSagas(), maxList)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, i := range all {
		if !i.All {
			results = append(results, unknown("more than %d sagas %s version %d in state %s: the others were not looked at", s.database.x.config.maxSagas(), i.Name, i.Version, i.State))
		}
		if i.Sagas == 0 {
			continue
		}
		results = append(results, found(fmt.Sprintf("%s %s version %d in state %s without a deadline, unchanged for up to %s: %s",
			quantity(i.Sagas, "saga"), i.Name, i.Version, i.State, about(seconds(i.Age)), i.Key), "a change, or a deadline, within "+about(longest),
			"# what it waits for, in all services:\nrocketflow why "+shell(i.Key)))
	}
	if len(results) == 0 {
		return one(ok("none is idle"))
	}
	return results
}

func sagaVersion(ctx context.Context, s *schema) (results []Result) {
	type running struct {
		Name    string
		Version int
	}
	all, err := list[running](ctx, s.database, s.sql, "SagaVersions", maxList)
	registered := s.database.x.config.Expect.Sagas
	own := len(registered) == 0 && s.database.x.config.Sagas != nil // another process may register others
	if own {
		registered = s.database.x.config.Sagas()
	}
	switch {
	case err != nil:
		return one(s.cannot(err))
	case len(all) == 0:
		return one(ok("no saga runs"))
	case len(registered) == 0:
		return one(unknown("which versions processes register is not known: set Expect.Sagas, or --saga name=version"))
	}
	for _, r := range all {
		switch {
		case slices.Contains(registered, SagaVersion(r)):
		case own && !slices.ContainsFunc(registered, func(v SagaVersion) bool { return v.Name == r.Name }):
			results = append(results, unknown("sagas %s of version %d run, and this process registers no version of it: Expect.Sagas has what all processes register", r.Name, r.Version))
		default:
			results = append(results, found(fmt.Sprintf("sagas %s of version %d run, and no process registers it", r.Name, r.Version), "a process that registers it",
				fmt.Sprintf("# register saga %s version %d until its sagas have finished", safe(r.Name), r.Version)))
		}
	}
	if len(results) == 0 {
		return one(ok("all %s are registered", quantity(int64(len(all)), "running version")))
	}
	return results
}
