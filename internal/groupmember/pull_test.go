package groupmember

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// scripted is a broker that answers each pull by a function.
type scripted func(offset int64) *remoting.Command

func (s scripted) Queues(context.Context, string) ([]Queue, error) { return nil, nil }
func (s scripted) Replica(string, int) int                         { return Master }
func (s scripted) Connection(string) int64                         { return 1 }
func (s scripted) Call(_ context.Context, _ string, _ int, request *remoting.Command) (*remoting.Command, error) {
	if request.Code != remoting.PullMessage {
		return request.Answer(remoting.Success, ""), nil
	}
	offset, err := strconv.ParseInt(request.Ext["queueOffset"], 10, 64)
	if err != nil {
		return nil, err
	}
	answer := s(offset)
	return answer, answer.Err()
}

func (s scripted) reader(logger *slog.Logger, offset int64) *reader {
	r := newReader(New(Config{Network: s, Logger: logger}), Queue{Topic: "orders", Broker: "b"}, false)
	r.window = newWindow(offset, 1024, 1<<20)
	close(r.placed)
	return r
}

func answer(code remoting.Code, next, end int64, body []byte) *remoting.Command {
	return &remoting.Command{Code: code, Body: body, Ext: map[string]string{"nextBeginOffset": strconv.FormatInt(next, 10), "maxOffset": strconv.FormatInt(end, 10)}}
}

func records(t testing.TB, offsets ...int64) (body []byte) {
	t.Helper()
	for _, offset := range offsets {
		var err error
		if body, err = (&remoting.Record{Topic: "orders", QueueOffset: offset, Body: []byte("body")}).Append(body); err != nil {
			t.Fatal(err)
		}
	}
	return body
}

// A broker that answers at once, and never with anything that helps, is asked less and less often, and reported.
func TestPullsWithoutProgressPause(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]scripted{
		"nothing":           func(offset int64) *remoting.Command { return answer(remoting.Success, offset, 100, nil) },
		"again":             func(offset int64) *remoting.Command { return answer(remoting.PullRetryNow, offset, 100, nil) },
		"back":              func(offset int64) *remoting.Command { return answer(remoting.PullRetryNow, offset-1, 100, nil) },
		"away":              func(int64) *remoting.Command { return answer(remoting.PullRetryNow, 1<<40, 100, nil) },
		"moved to the same": func(offset int64) *remoting.Command { return answer(remoting.PullOffsetMoved, offset, 100, nil) },
		"moved to and fro":  func(offset int64) *remoting.Command { return answer(remoting.PullOffsetMoved, 21-offset, 100, nil) },
		"moved on and on":   func(offset int64) *remoting.Command { return answer(remoting.PullOffsetMoved, offset+1, 100, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 5
			var pulls, reported atomic.Int64
			var log strings.Builder
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var r *reader
			r = scripted(func(offset int64) *remoting.Command {
				if pulls.Add(1) == most {
					cancel()
				}
				if r.err() != nil {
					reported.Add(1)
				}
				return broker(offset)
			}).reader(slog.New(slog.NewTextHandler(&log, nil)), 10)
			began := time.Now()
			for ctx.Err() == nil {
				r.retry(ctx, &r.problem, r.pull)
			}
			if took := time.Since(began); took < minRetry || reported.Load() == 0 {
				t.Errorf("%d pulls in %v, of which %d after a report", most, took, reported.Load())
			}
			if lines := strings.Count(log.String(), "\n"); lines > 2 {
				t.Errorf("%d log lines:\n%s", lines, log.String())
			}
			if at := r.window.pulledTo(); name != "moved on and on" && (at < 10 || at > 11) {
				t.Errorf("the position is %d", at)
			}
		})
	}
}

// Of a response with more messages than were requested, as many are taken. What it says of messages that it hasn't is believed only up to
// the end of the queue that it names, and logged.
func TestResponsesAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		next     int64
		end      int64
		records  []int64
		position int64
		err      string // contained in the error; empty: none
		log      string // contained in the log; empty: nothing is logged
	}{
		{"as requested", 12, 12, []int64{10, 11}, 12, "", ""},
		{"more than requested", 14, 14, []int64{10, 11, 12, 13}, 13, "", ""},
		{"a message that came meanwhile", 13, 11, []int64{10, 11, 12}, 13, "", ""},
		{"some left out at the end", 20, 30, []int64{10, 11}, 20, "", "without some between"},
		{"some left out before", 13, 13, []int64{12}, 13, "", "without some between"},
		{"some left out between", 13, 13, []int64{10, 12}, 13, "", "without some between"},
		{"beyond the end", 31, 30, []int64{10, 11}, 12, "though the queue ends at 30", ""},
		{"no end named", 31, 0, []int64{10, 11}, 31, "", "without some between"},
	} {
		var log strings.Builder
		r := scripted(func(int64) *remoting.Command {
			return answer(remoting.Success, c.next, c.end, records(t, c.records...))
		}).
			reader(slog.New(slog.NewTextHandler(&log, nil)), 10)
		r.window.maxCount = 3
		err := r.pull(t.Context())
		if at := r.window.pulledTo(); at != c.position || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: position %d, %v; want %d, %q", c.name, at, err, c.position, c.err)
		}
		if text := log.String(); (text != "") != (c.log != "") || !strings.Contains(text, c.log) {
			t.Errorf("%s: logged %q, want %q", c.name, text, c.log)
		}
		if n := r.window.held(); n > 3 {
			t.Errorf("%s: %d messages are held, want at most the 3 requested", c.name, n)
		}
	}
}
