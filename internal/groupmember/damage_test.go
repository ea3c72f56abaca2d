package groupmember

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// FuzzTake: whatever a broker responds to a pull, the position moves only past what a handler gets, and not beyond what the broker says.
func FuzzTake(f *testing.F) {
	record := func(offset int64) []byte {
		b, err := (&remoting.Record{Topic: "orders", QueueOffset: offset, Body: []byte("body"), Properties: map[string]string{"a": "b"}}).Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(record(10), int64(11), int64(11))
	f.Add(append(record(10), record(11)...), int64(12), int64(12))
	f.Add(record(9), int64(12), int64(12))
	f.Add(record(10)[:20], int64(11), int64(11))
	f.Add(append(record(10), record(12)...), int64(20), int64(15))
	f.Add(slices.Concat(record(10), record(11), record(12), record(13), record(14)), int64(15), int64(15))
	f.Add([]byte("nonsense"), int64(20), int64(20))
	f.Fuzz(func(t *testing.T, body []byte, next, end int64) {
		records, _ := remoting.DecodeRecords(body)
		if slices.ContainsFunc(records, func(r *remoting.Record) bool { return r.SysFlag&remoting.FlagInnerBatch != 0 }) {
			return // a batch may begin before the position
		}
		r := newReader(New(Config{Logger: slog.New(slog.DiscardHandler)}), Queue{Topic: "orders", Broker: "b"}, false)
		r.window = newWindow(10, 100, 1<<20)
		for range 2 {
			_ = r.take(pulled{offset: 10, next: next, end: end, body: body, replica: Master, most: 3})
			if r.suspect != nil {
				r.suspect.since = time.Time{} // it was read again for long enough
			}
		}
		at := r.window.pulledTo()
		if n := r.window.held(); n > 2*3 {
			t.Errorf("%d records were taken", n)
		}
		if last := r.window.entries; end > 0 && at > max(10, end) && (len(last) == 0 || at > last[len(last)-1].record.QueueOffset+1) {
			t.Errorf("the position is %d, and the queue ends at %d", at, end)
		}
		if at < 10 || at > max(10, next) {
			t.Errorf("the position is %d", at)
		}
		if at > 10 && r.window.held() == 0 {
			t.Errorf("the position is %d, and no handler gets anything", at)
		}
	})
}
