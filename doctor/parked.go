package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

// parked judges the parked events of each consumer that have a reason.
func (s *schema) parked(ctx context.Context, fine string, judge func(p operate.ParkedCount, age time.Duration) (Result, bool)) (results []Result) {
	b, err := s.readBacklog(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	now, err := s.database.now(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, p := range b.Parked {
		if r, bad := judge(p, now.Sub(p.Oldest)); bad {
			results = append(results, r.about(fmt.Sprintf("consumer %s of %s", p.Consumer, s.subject())))
		}
	}
	if len(results) == 0 {
		return one(ok("%s", fine))
	}
	return results
}

func consumerDeadLetters(ctx context.Context, s *schema) []Result {
	return s.parked(ctx, "there is no dead letter", func(p operate.ParkedCount, age time.Duration) (Result, bool) {
		return found(fmt.Sprintf("%s, the oldest for %s", quantity(p.Events, "dead letter"), about(age)), "none",
			fmt.Sprintf("rocketflow redrive list --consumer %s%s\nrocketflow redrive retry --consumer %[1]s%[2]s", shell(p.Consumer), s.flag())), p.Reason == operate.StateDead
	})
}

func consumerParked(ctx context.Context, s *schema) []Result {
	longest := s.database.x.config.Expect.MaxParked
	return s.parked(ctx, "no event is parked for long", func(p operate.ParkedCount, age time.Duration) (Result, bool) {
		return found(fmt.Sprintf("%s parked (%s), the oldest for %s", quantity(p.Events, "event"), p.Reason, about(age)), "at most "+about(longest),
			fmt.Sprintf("rocketflow redrive parked --consumer %s%s", shell(p.Consumer), s.flag())), p.Reason != operate.StateDead && p.Reason != operate.StateUnhandled && p.Reason != operate.StatePaused && age > longest
	})
}

func consumerPaused(ctx context.Context, s *schema) (results []Result) {
	type pause struct {
		Consumer, Kind, Topic, Type, Subject string
		Age                                  float64
		Actor, Reason                        string
		Held                                 int64
	}
	all, err := list[pause](ctx, s.database, s.sql, "Paused", maxCount, maxList)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, p := range all {
		what, flags := "the consumer is", ""
		switch operate.PauseKind(p.Kind) {
		case operate.PauseHandler:
			what = fmt.Sprintf("the handler of type %s of topic %s (%s parked) is", p.Type, p.Topic, quantity(p.Held, "event"))
			flags = " --topic " + shell(p.Topic) + " --type " + shell(p.Type)
		case operate.PauseStream:
			what = fmt.Sprintf("subject %s of topic %s (%s parked) is", p.Subject, p.Topic, quantity(p.Held, "event"))
			flags = " --topic " + shell(p.Topic) + " --subject " + shell(p.Subject)
		}
		why := ""
		if p.Reason != "" {
			why = ": " + p.Reason
		}
		results = append(results, found(fmt.Sprintf("%s paused for %s, by %s%s", what, about(seconds(p.Age)), p.Actor, why), "not paused",
			fmt.Sprintf("rocketflow resume --consumer %s%s%s", shell(p.Consumer), flags, s.flag())).about(fmt.Sprintf("consumer %s of %s", p.Consumer, s.subject())))
	}
	if len(results) == 0 {
		return one(ok("nothing is paused"))
	}
	return results
}

func consumerUnhandled(ctx context.Context, s *schema) (results []Result) {
	type unhandled struct {
		Consumer, Topic, Type string
		Events                int64
		Age                   float64
	}
	all, err := list[unhandled](ctx, s.database, s.sql, "Unhandled", maxCount, maxList)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, u := range all {
		results = append(results, found(fmt.Sprintf("%s of type %s of topic %s without a handler, the oldest for %s", quantity(u.Events, "event"), u.Type, u.Topic, about(seconds(u.Age))),
			"a process with a handler for each registered type",
			fmt.Sprintf("# start the version that has the handler, or:\nrocketflow redrive retire --consumer %s --topic %s --type %s%s", shell(u.Consumer), shell(u.Topic), shell(u.Type), s.flag())).
			about(fmt.Sprintf("consumer %s of %s", u.Consumer, s.subject())))
	}
	if len(results) == 0 {
		return one(ok("no event waits for a handler"))
	}
	return results
}
