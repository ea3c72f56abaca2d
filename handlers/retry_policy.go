package handlers

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// RetryPolicy says when a failed event is tried again, and when it becomes a dead letter. The wait after a failure doubles
// with each further one, from Base up to Max.
type RetryPolicy struct {
	// Attempts is the number of attempts in all, the first included. After the last one the event is a dead letter.
	// Defaults to 110, which with the other defaults takes about a day.
	Attempts int
	// Base is the wait after the first failure.
	// Defaults to 1 s.
	Base time.Duration
	// Max is the longest wait.
	// Defaults to 15 min, or to Base if that is more.
	Max time.Duration
	// Jitter is the part of a wait that is random, from 0 to 1; negative: none.
	// Defaults to 0.2.
	Jitter float64
	// Rules are exceptions by the error of the handler. The first that matches applies; without a match the fields above
	// apply.
	// Defaults to none.
	Rules []RetryRule
}

// RetryRule is a rule of a [RetryPolicy]: how to treat an event whose handler returned a certain error.
//
// [Discard], [Dead], [RetryAfter] and rocketflow.ErrStale take precedence over all rules. Rules don't apply to transient
// errors of Postgres, such as a deadlock or a lost connection: the router runs the transaction again.
type RetryRule struct {
	// Is matches an error for which errors.Is(err, Is) is true. Set either Is or Match.
	Is error
	// Match matches an error for which it returns true; [ErrorAs] makes one for a type of error. It must be quick and is
	// called by several goroutines at once. One that panics matches nothing.
	Match func(err error) bool
	// Action is what to do with the event.
	// Defaults to ActionRetry.
	Action RetryAction
	// Wait is the time until the next attempt, for ActionWait.
	Wait time.Duration
	// Retry is the policy for ActionRetry. A zero field takes the value of the policy that the rule belongs to. Its Attempts
	// counts all failed attempts at the event, whatever their errors. It must have no Rules.
	Retry RetryPolicy
}

// RetryAction is what a RetryRule does with an event whose handler failed.
type RetryAction string

// The actions of a RetryRule.
const (
	// ActionRetry counts the attempt and tries again after a wait that grows, or makes the event a dead letter after the
	// last attempt.
	ActionRetry RetryAction = "retry"
	// ActionWait tries again after a fixed time and counts no attempt, as RetryAfter does. It is for conditions that end by
	// themselves but may take long, such as another system's rate limit. There is no limit to the number of tries.
	ActionWait RetryAction = "wait"
	// ActionDiscard settles the event without its effect, as Discard does.
	ActionDiscard RetryAction = "discard"
	// ActionDeadLetter makes the event a dead letter at once, as Dead does.
	ActionDeadLetter RetryAction = "dead letter"
)

// ErrorAs reports whether err, or an error that it wraps, is of type E. It is for RetryRule.Match:
//
//	handlers.RetryRule{Match: handlers.ErrorAs[*net.OpError], Action: handlers.ActionWait, Wait: time.Minute}
func ErrorAs[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}

func (p RetryPolicy) isZero() bool {
	return p.Attempts == 0 && p.Base == 0 && p.Max == 0 && p.Jitter == 0 && len(p.Rules) == 0
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	p.Attempts = cmp.Or(p.Attempts, 110)
	p.Base = cmp.Or(p.Base, time.Second)
	p.Max = cmp.Or(p.Max, max(15*time.Minute, p.Base))
	p.Jitter = cmp.Or(p.Jitter, 0.2)
	return p
}

// orElse returns the policy with the values of another for zero fields.
func (p RetryPolicy) orElse(other RetryPolicy) RetryPolicy {
	p.Attempts = cmp.Or(p.Attempts, other.Attempts)
	p.Base = cmp.Or(p.Base, other.Base)
	p.Max = cmp.Or(p.Max, max(other.Max, p.Base))
	p.Jitter = cmp.Or(p.Jitter, other.Jitter)
	return p
}

// validate names fields behind a prefix.
func (p RetryPolicy) validate(prefix string) error {
	switch {
	case p.Attempts < 1:
		return valid.Field(prefix+"Attempts", "want at least 1")
	case p.Base < 0 || p.Max < p.Base:
		return valid.Field(prefix+"Base", "want more than 0 and at most Max")
	case p.Jitter > 1:
		return valid.Field(prefix+"Jitter", "want at most 1")
	}
	for i, rule := range p.Rules {
		if err := rule.validate(fmt.Sprintf("%sRules[%d].", prefix, i), p); err != nil {
			return err
		}
	}
	return nil
}

func (r RetryRule) validate(prefix string, of RetryPolicy) error {
	if (r.Is == nil) == (r.Match == nil) {
		return valid.Field(prefix+"Is", "want either Is or Match")
	}
	if r.Wait != 0 && r.Action != ActionWait {
		return valid.Field(prefix+"Wait", "is for ActionWait")
	}
	if !r.Retry.isZero() && cmp.Or(r.Action, ActionRetry) != ActionRetry {
		return valid.Field(prefix+"Retry", "is for ActionRetry")
	}
	switch r.Action {
	case "", ActionRetry:
		if len(r.Retry.Rules) > 0 {
			return valid.Field(prefix+"Retry.Rules", "a rule has none")
		}
		return r.Retry.orElse(of).validate(prefix + "Retry.")
	case ActionWait:
		if r.Wait <= 0 {
			return valid.Field(prefix+"Wait", "want more than 0")
		}
	case ActionDiscard, ActionDeadLetter:
	default:
		return valid.Fieldf(prefix+"Action", "%q: want one of the constants", r.Action)
	}
	return nil
}

func (r RetryRule) matches(err error) bool {
	if r.Match != nil {
		return r.Match(err)
	}
	return errors.Is(err, r.Is)
}

// guarded returns the policy with rules whose Match can't end the goroutine that calls it.
func (p RetryPolicy) guarded(reporter *guard.Reporter) RetryPolicy {
	p.Rules = slices.Clone(p.Rules)
	for i, rule := range p.Rules {
		if rule.Match == nil {
			continue
		}
		p.Rules[i].Match = func(err error) (matches bool) {
			reporter.Report("RetryRule.Match", guard.Run(func() { matches = rule.Match(err) }))
			return matches
		}
	}
	return p
}

// after returns the wait that follows the given number of failed attempts.
func (p RetryPolicy) after(failed int) time.Duration {
	wait := p.Max
	if shift := failed - 1; shift < 40 && p.Base < p.Max>>shift {
		wait = p.Base << shift
	}
	if p.Jitter > 0 {
		wait -= time.Duration(rand.Float64() * p.Jitter * float64(wait)) //nolint:gosec // jitter needs no secrecy
	}
	return wait
}

// outcome is the result of applying a policy to a handler's error.
type outcome struct {
	err    error
	action RetryAction
	wait   time.Duration // for ActionWait
	retry  RetryPolicy   // for ActionRetry
	// final: the handler isn't called once more in a turn of its own, because the error itself decides about the event, or
	// because the handler's deadline has passed and other events have waited for long enough.
	final bool
}

// outcome applies the policy to the error of a turn that failed for one event: an error of its handler, or of one of the
// turn's statements.
func (p RetryPolicy) outcome(err error) *outcome {
	v := outcome{err: err, action: ActionRetry, retry: p}
	var handler *handlerError
	fromHandler := errors.As(err, &handler)
	v.final = fromHandler && handler.late
	var said *discardError
	var dead *deadError
	var later *rocketflow.RetryAfterError
	switch {
	case errors.As(err, &said), errors.Is(err, rocketflow.ErrStale):
		v.action = ActionDiscard
	case errors.As(err, &later):
		v.action, v.wait = ActionWait, max(later.After, 0)
	case errors.As(err, &dead):
		v.action = ActionDeadLetter
	case fromHandler && p.applyRule(&v):
		v.final = v.final || v.action != ActionRetry
		return &v
	case errors.Is(err, rocketflow.ErrUndecodable):
		v.action = ActionDeadLetter
	default:
		return &v
	}
	v.final = v.final || fromHandler
	return &v
}

// applyRule applies the first rule that matches the outcome's error.
func (p RetryPolicy) applyRule(v *outcome) bool {
	for _, rule := range p.Rules {
		if rule.matches(v.err) {
			v.action, v.wait, v.retry = cmp.Or(rule.Action, ActionRetry), rule.Wait, rule.Retry.orElse(p)
			return true
		}
	}
	return false
}

// parking returns how to park the event, which had failed so many times before. It is not for ActionDiscard.
func (v *outcome) parking(failed int) inbox.Parking {
	switch {
	case v.action == ActionWait:
		return inbox.Parking{Reason: inbox.Retry, Attempts: failed, After: v.wait, Err: v.err}
	case v.action == ActionDeadLetter, failed+1 >= v.retry.Attempts:
		return inbox.Parking{Reason: inbox.DeadLetter, Attempts: failed + 1, After: inbox.UntilWoken, Err: v.err}
	}
	return inbox.Parking{Reason: inbox.Retry, Attempts: failed + 1, After: v.retry.after(failed + 1), Err: v.err}
}
