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

// pulled is the response to a pull at offset.
type pulled struct {
	offset, next int64 // next: where the broker says that the next pull begins
	end          int64 // where the broker says that the queue ends; 0: it doesn't
	body         []byte
	replica      int // that was read
	most         int // how many messages were requested
}

// take takes the response to a pull: its records up to the first that can't be decoded, and no more than were requested. That one is read
// again, alone. If it stays as it is, it is taken as what can be read of it, with the reason, so that its handler can put it aside. What a
// slave returns is read again from the master.
func (r *reader) take(p pulled) error {
	offset, next, body := p.offset, p.next, p.body
	records, whole, err := r.decode(p)
	if whole {
		r.suspect = nil
		r.logPassedOver(offset, next, records)
		r.window.add(offset, records, next)
		return nil
	}
	if len(records) > 0 {
		for _, record := range records { // not to hold the rest of the response as long as one of them waits
			record.Body = bytes.Clone(record.Body)
		}
		behind := records[len(records)-1].QueueOffset + 1
		r.logPassedOver(offset, behind, records)
		r.window.add(offset, records, behind)
		if err != nil {
			err = fmt.Errorf("record at offset %d, which is read again: %w", r.window.pulledTo(), err)
		}
		return err
	}
	if p.replica != Master {
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
	record, located := locate(p, err)
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

// logPassedOver logs where the records of a response leave out offsets. A broker leaves out what its retention has removed meanwhile, and a
// topic that is compacted keeps the latest message of each key. A batch that is stored as one has several offsets.
func (r *reader) logPassedOver(offset, next int64, records []*remoting.Record) {
	for _, record := range records {
		if record.SysFlag&remoting.FlagInnerBatch != 0 {
			return
		}
		if record.QueueOffset > offset {
			break
		}
		offset = record.QueueOffset + 1
	}
	if offset < next {
		r.logJump("broker returns messages without some between them, as after its retention has removed these; the group goes on", offset, next, "")
	}
}

// decode returns the records of a response up to the first that can't be decoded or can't be the queue's next, and why it can't. whole is
// false, too, if the response has more than was requested.
func (r *reader) decode(p pulled) (records []*remoting.Record, whole bool, err error) {
	offset, next := p.offset, p.next
	records, err = remoting.DecodeFirstRecords(p.body, p.most+1)
	bad := func(i int, text string, more ...any) ([]*remoting.Record, bool, error) {
		return records[:i], false, fmt.Errorf("%w "+text, append([]any{remoting.ErrMalformed}, more...)...)
	}
	for i, record := range records {
		switch at := record.QueueOffset; {
		case i == p.most:
			return records[:i], false, nil
		case record.Topic != r.queue.Topic:
			return bad(i, "record: it names topic %.80q", record.Topic)
		case at >= next:
			return bad(i, "record: it names offset %d, though the next message is at %d", at, next)
		case record.SysFlag&remoting.FlagInnerBatch != 0: // it may begin before the offset that was requested, and stands for several
			offset = max(offset, at)
		case at < offset:
			return bad(i, "record: it names offset %d, in the place of %d or a later one", at, offset)
		default:
			offset = at + 1
		}
	}
	switch {
	case err != nil:
		return records, false, err
	case len(records) == 0 && next > offset:
		return bad(0, "response: no record, though the next message is at %d", next)
	case p.end > 0 && next > max(p.end, offset): // what has come since the broker looked for the end is among the records
		return bad(len(records), "response: the next message is at %d, though the queue ends at %d", next, p.end)
	}
	return records, true, nil
}

// locate returns what can be read of the first record in the response to a pull of one message. It returns false if it isn't
// certain where the record ends in the queue: then a message that follows could be passed over.
func locate(p pulled, damage error) (record *remoting.Record, located bool) {
	offset, next := p.offset, p.next
	record, size := remoting.Salvage(p.body, damage)
	switch at := record.QueueOffset; {
	case next == offset+1:
		record.QueueOffset = offset
	case p.end > 0 && next > p.end: // nothing that the broker says can be trusted
		return nil, false
	case size > 0 && at >= offset && at < next: // it says itself where it is
	case size > 0 && size == len(p.body) && next > offset: // it is the only one
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
