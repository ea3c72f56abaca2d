package groupmember

import (
	"bytes"
	"fmt"
	"log/slog"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// confirmDamage is how long a record that can't be decoded is read again before it is taken for what the broker stores: what was
// damaged on the way, or by a broker that is shutting down, comes whole then.
const confirmDamage = 2 * time.Second

// suspect is a record that can't be decoded.
type suspect struct {
	offset int64
	body   []byte // of the response that has it alone
	since  time.Time
	stuck  bool // it was logged that the queue can't be read beyond it
}

// take takes the response to a pull at offset: its records up to the first that can't be decoded. That one is read again, alone. If it
// stays as it is, it is taken as what can be read of it, with the reason, so that its handler can put it aside. What a slave returns is
// read again from the master.
func (r *reader) take(offset, next int64, body []byte, replica int) error {
	records, err := r.decode(offset, next, body)
	if err == nil {
		r.suspect = nil
		r.window.add(offset, records, next)
		return nil
	}
	if len(records) > 0 {
		r.window.add(offset, records, records[len(records)-1].QueueOffset+1)
		return fmt.Errorf("record at offset %d, which is read again: %w", r.window.pulledTo(), err)
	}
	if replica != Master {
		r.replica = Master
		return fmt.Errorf("record at offset %d of a slave, which is read from the master: %w", offset, err)
	}
	s := r.suspect
	if s == nil || s.offset != offset || !bytes.Equal(s.body, body) {
		r.suspect = &suspect{offset: offset, body: bytes.Clone(body), since: time.Now()}
		return fmt.Errorf("record at offset %d, which is read again: %w", offset, err)
	}
	if time.Since(s.since) < confirmDamage {
		return fmt.Errorf("record at offset %d, which is read again: %w", offset, err)
	}
	record, located := locate(offset, next, body, err)
	if !located {
		err = fmt.Errorf("record at offset %d can't be decoded, and the broker doesn't say where the next one begins, so the queue isn't read any further: "+
			"move the group past the record with mqadmin resetOffsetByTime -g %s -t %s -q %d -b <address of broker %s> -o <offset> -s now (RocketMQ 4: of all queues, with -s <time> alone): %w",
			offset, r.member.config.Group, r.queue.Topic, r.queue.ID, r.queue.Broker, err)
		if !s.stuck {
			s.stuck = true
			r.log(slog.LevelError, "queue can't be read beyond a record", "offset", offset, "error", err)
		}
		return err
	}
	r.log(slog.LevelWarn, "a record can't be decoded; the handler gets what can be read of it, with the reason", "offset", record.QueueOffset, "error", err)
	r.suspect = nil
	r.window.add(offset, []*remoting.Record{record}, record.QueueOffset+1)
	return nil
}

// decode returns the records of a response up to the first that can't be decoded or can't be the queue's next, and why it can't.
func (r *reader) decode(offset, next int64, body []byte) ([]*remoting.Record, error) {
	records, err := remoting.DecodeRecords(body)
	for i, record := range records {
		switch at := record.QueueOffset; {
		case record.Topic != r.queue.Topic:
			return records[:i], fmt.Errorf("%w record: it names topic %.80q", remoting.ErrMalformed, record.Topic)
		case at >= next:
			return records[:i], fmt.Errorf("%w record: it names offset %d, though the next message is at %d", remoting.ErrMalformed, at, next)
		case record.SysFlag&remoting.FlagInnerBatch != 0: // it may begin before the offset that was requested, and stands for several
			offset = max(offset, at)
		case at < offset:
			return records[:i], fmt.Errorf("%w record: it names offset %d, in the place of %d or a later one", remoting.ErrMalformed, at, offset)
		default:
			offset = at + 1
		}
	}
	if err == nil && len(records) == 0 && next > offset {
		err = fmt.Errorf("%w response: no record, though the next message is at %d", remoting.ErrMalformed, next)
	}
	return records, err
}

// locate returns what can be read of the first record in the response to a pull of one message at offset. It returns false if it isn't
// certain where the record ends in the queue: then a message that follows could be passed over.
func locate(offset, next int64, body []byte, damage error) (record *remoting.Record, located bool) {
	record, size := remoting.Salvage(body, damage)
	switch at := record.QueueOffset; {
	case next == offset+1:
		record.QueueOffset = offset
	case size > 0 && at >= offset && at < next: // it says itself where it is
	case size > 0 && size == len(body) && next > offset: // it is the only one
		record.QueueOffset = next - 1
	default:
		return nil, false
	}
	return record, true
}

func (r *reader) log(level slog.Level, message string, more ...any) {
	r.member.config.Logger.With("group", r.member.config.Group, "topic", r.queue.Topic, "broker", r.queue.Broker, "queue", r.queue.ID).
		Log(r.member.handlers, level, message, more...)
}
