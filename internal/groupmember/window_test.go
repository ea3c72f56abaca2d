package groupmember

import (
	"math/rand/v2"
	"testing"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

func record(offset int64, size int) *remoting.Record {
	return &remoting.Record{QueueOffset: offset, Body: make([]byte, size)}
}

func TestOffsetIsThatOfTheOldestUnsettled(t *testing.T) {
	t.Parallel()
	w := newWindow(100, 10, 1<<20)
	w.add(100, []*remoting.Record{record(100, 1), record(103, 1), record(104, 1)}, 110) // filtered ones are missing
	records := map[int64]*remoting.Record{}
	for range 3 {
		r, _ := w.take()
		if r == nil {
			t.Fatal("nothing to take")
		}
		records[r.QueueOffset] = r
	}
	if r, wait := w.take(); r != nil || wait == nil {
		t.Errorf("took %v", r)
	}
	for _, step := range []struct{ settle, want int64 }{{104, 100}, {100, 103}, {103, 110}} {
		if w.settle(records[step.settle]); w.offset() != step.want {
			t.Errorf("%d settled: offset %d, want %d", step.settle, w.offset(), step.want)
		}
	}
}

func TestWindowIsFull(t *testing.T) {
	t.Parallel()
	w := newWindow(0, 2, 100)
	w.add(0, []*remoting.Record{record(0, 1), record(1, 1)}, 2)
	_, n, changed := w.next()
	if n != 0 {
		t.Errorf("room for %d", n)
	}
	r, _ := w.take()
	w.settle(r)
	<-changed
	if _, n, _ = w.next(); n != 1 {
		t.Errorf("room for %d", n)
	}
	r, _ = w.take()
	w.settle(r)
	w.add(2, []*remoting.Record{record(2, 200)}, 3)
	if _, n, _ := w.next(); n != 0 {
		t.Errorf("200 of 100 bytes: room for %d", n)
	}
}

// A second copy of what is there, as after a pull that was answered twice, isn't handled twice.
func TestWindowIgnoresMessagesThatItHas(t *testing.T) {
	t.Parallel()
	w := newWindow(5, 10, 100)
	w.add(5, []*remoting.Record{record(4, 1), record(5, 1)}, 6)
	w.add(6, []*remoting.Record{record(5, 1), record(6, 1)}, 7)
	var got []int64
	for {
		r, _ := w.take()
		if r == nil {
			break
		}
		got = append(got, r.QueueOffset)
	}
	if len(got) != 2 || got[0] != 5 || got[1] != 6 {
		t.Errorf("took %v", got)
	}
}

// Whatever the order in which messages are settled, the offset never passes one that isn't.
func TestOffsetNeverPassesTheUnsettled(t *testing.T) {
	t.Parallel()
	const n = 200
	w := newWindow(0, n, 1<<20)
	var records []*remoting.Record
	for i := range int64(n) {
		w.add(i, []*remoting.Record{record(i, 1)}, i+1)
		r, _ := w.take()
		records = append(records, r)
	}
	settled := map[int64]bool{}
	for _, i := range rand.Perm(n) {
		w.settle(records[i])
		settled[int64(i)] = true
		want := int64(0)
		for settled[want] {
			want++
		}
		if w.offset() != want {
			t.Fatalf("offset %d, want %d", w.offset(), want)
		}
	}
}

// A broker that lost its last messages gives their offsets to others. What was handled of the lost says nothing of those.
func TestLostMessagesSettleNothing(t *testing.T) {
	t.Parallel()
	w := newWindow(0, 10, 100)
	w.add(0, []*remoting.Record{record(0, 1), record(1, 1)}, 2)
	_, _ = w.take()
	lost, _ := w.take()
	w.move(1)
	w.add(1, []*remoting.Record{record(1, 1)}, 2)
	if _, wait := w.take(); wait != nil {
		t.Fatal("nothing to take")
	}
	if w.settle(lost); w.offset() != 1 {
		t.Errorf("offset %d", w.offset())
	}
}

// A pull that was under way when the window was moved changes nothing: what it brings isn't what comes next.
func TestWindowIgnoresPullsFromBeforeItWasMoved(t *testing.T) {
	t.Parallel()
	w := newWindow(10, 10, 100)
	w.move(3)
	w.add(10, []*remoting.Record{record(10, 1)}, 11)
	if offset, _, _ := w.next(); offset != 3 {
		t.Errorf("goes on at %d, want 3", offset)
	}
}
