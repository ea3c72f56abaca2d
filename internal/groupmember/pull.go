package groupmember

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Bits of a pull's flag. Bit 0, by which a pull stores the group's offset as well, is never set: brokers handle pulls and requests
// that store an offset in parallel, so a pull could undo what a later request has stored, and a stop would have messages
// handled again.
const (
	pullSuspends   = 1 << 1 // it is held while there is no message
	pullSubscribes = 1 << 2 // it contains the subscription
)

const maxPull = 256 // messages that one request asks for; brokers return up to 32

// emptyPause is the least time from one pull to the next while a broker answers at once that there is no message.
const emptyPause = 50 * time.Millisecond

// slaveHold is how long a slave holds a pull: the master may be back at any time.
const slaveHold = time.Second

// pull waits until the window has room, pulls once, and takes what comes. After an error, on another connection, and after a slave was
// read, the offset is stored before the master is pulled from: it may be a new one that has an older offset. It is so, too, after the group
// has stepped back: what is handled then would be passed over after a crash.
func (r *reader) pull(ctx context.Context) (err error) {
	defer func() { r.behind = r.behind || err != nil }()
	offset, room, changed := r.window.next()
	if room <= 0 {
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return nil
	}
	replica, hold := r.member.config.Network.Replica(r.queue.Broker, r.replica), pullHold
	switch {
	case replica != Master:
		hold, r.behind = slaveHold, true
	case r.behind || r.isNew(r.member.config.Network.Connection(r.queue.Broker)):
		if err := r.storeOffset(ctx, true); err != nil {
			return err
		}
		r.behind = false
	}
	count := min(room, maxPull)
	if r.suspect != nil && r.suspect.offset == offset {
		count = 1 // so that the broker says where the next one begins
	}
	began := time.Now()
	pulling, done := r.beginPull(ctx)
	answer, err := r.call(pulling, hold+holdSlack+callTimeout, replica, r.request(remoting.PullMessage,
		"queueOffset", strconv.FormatInt(offset, 10),
		"maxMsgNums", strconv.Itoa(count),
		"sysFlag", strconv.Itoa(pullSuspends|pullSubscribes),
		"commitOffset", "0", // required, and not used
		"suspendTimeoutMillis", strconv.FormatInt(hold.Milliseconds(), 10),
		"subscription", "*", "expressionType", "TAG",
		"subVersion", strconv.FormatInt(r.member.joined.UnixMilli(), 10),
	))
	done()
	r.replica = Master
	code := remoting.Success
	var refused *remoting.ResponseError
	if errors.As(err, &refused) {
		code = refused.Code
	} else if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.Canceled) {
			return nil // by move
		}
		return fmt.Errorf("pull: %w", err)
	}
	switch code {
	case remoting.Success, remoting.PullNotFound, remoting.PullRetryNow, remoting.PullOffsetMoved:
	default:
		return fmt.Errorf("pull: %w", err)
	}
	next, err := number(answer, "nextBeginOffset")
	if err == nil && next < 0 {
		err = fmt.Errorf("%w response: next offset is %d", remoting.ErrMalformed, next)
	}
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	got := pulled{offset: offset, next: next, body: answer.Body, replica: replica, most: count}
	if got.end, err = number(answer, "maxOffset"); err != nil {
		got.end = 0
	}
	if id, err := strconv.ParseInt(answer.Ext["suggestWhichBrokerId"], 10, 31); err == nil && id >= 0 && code == remoting.Success {
		r.replica = int(id)
	}
	if replica != Master && code != remoting.Success {
		if time.Since(began) < emptyPause {
			background.Sleep(ctx, clock.System{}, emptyPause)
		}
		return nil // it may not have yet, or not have any more, what the master has
	}
	if code != remoting.PullOffsetMoved {
		r.moves = 0
	}
	switch code {
	case remoting.Success, remoting.PullRetryNow:
		switch {
		case next <= offset && len(got.body) == 0: // the next pull would come at once, and so on
			return fmt.Errorf("pull: %w response: neither a message nor a later offset than %d", remoting.ErrMalformed, offset)
		case code == remoting.Success:
			return r.take(got)
		case got.end > 0 && next > got.end:
			return fmt.Errorf("pull: %w response: the next message is at %d, though the queue ends at %d", remoting.ErrMalformed, next, got.end)
		}
		r.logMoved(offset, next, answer.Remark)
		r.window.add(offset, nil, next)
	case remoting.PullOffsetMoved:
		r.logMoved(offset, next, answer.Remark)
		r.window.move(next)
		r.behind = next < offset
		if r.moves++; r.moves > maxMoves {
			return fmt.Errorf("pull: %w response: the group is moved from offset %d to %d, the %d. move in sequence without a message",
				remoting.ErrMalformed, offset, next, r.moves)
		}
	default:
		if next > offset {
			r.logMoved(offset, next, answer.Remark)
		}
		r.window.add(offset, nil, next)
		if time.Since(began) < emptyPause {
			background.Sleep(ctx, clock.System{}, emptyPause)
		}
	}
	return nil
}

// maxMoves is how often in sequence a broker may have the group go on elsewhere before that is an error: from what it no longer has to what
// it has, and once more if it is a new one or an operator has moved the group.
const maxMoves = 3

func (r *reader) logMoved(offset, next int64, remark string) {
	if next != offset {
		r.logJump("broker doesn't have the group's next message; the group goes on where the broker says", offset, next, remark)
	}
}

// jumpInterval is the least time from one warning about messages that are passed over to the next of the same queue.
const jumpInterval = time.Minute

func (r *reader) logJump(message string, offset, next int64, remark string) {
	level := slog.LevelWarn
	if now := time.Now(); now.Sub(r.jumped) < jumpInterval {
		level = slog.LevelDebug
	} else {
		r.jumped = now
	}
	r.log(level, message, "offset", offset, "next", next, "remark", remark)
}
