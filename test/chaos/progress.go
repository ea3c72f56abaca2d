package main

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// waiting notes what is parked, and why.
func (w *world) waiting(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	rows, err := w.pool.Query(ctx, w.ledger.sql.Get("Parked"))
	if err == nil {
		var line string
		_, err = pgx.ForEachRow(rows, []any{&line}, func() error {
			w.note("parked: %s", line)
			return nil
		})
	}
	if err != nil {
		w.note("parked: %v", err)
	}
}

// progress notes how far the consumers are in each queue of a real broker and where that holds the lost events, and has
// the consumers' processes note what they are at: for a schedule that doesn't come to rest.
func (w *world) progress(ctx context.Context, lost []string) {
	w.waiting(ctx)
	if w.server != nil {
		for _, s := range w.server.Subscriptions() {
			w.note("%s has read %s to %v", s.Group, s.Topic, s.Offsets)
		}
		messages, _ := w.server.MessagesSince(0)
		for _, m := range messages {
			var n note
			if json.Unmarshal(m.Body, &n) == nil && slices.ContainsFunc(lost, func(l string) bool { return strings.HasPrefix(l, n.Name+" ") }) {
				w.note("%s queue %d, %d: %s, id %s, sequence %s after %s", m.Topic, m.Queue, m.Offset, n.Name, m.Properties["CE_id"], m.Properties["CE_sequence"], m.Properties["rf_previous"])
			}
		}
		return
	}
	for _, s := range w.slots {
		if c, ok := s.member().(*child); ok && s.settings.Consumes {
			_ = c.cmd.Process.Signal(syscall.SIGQUIT) // it dies of that, which is all right by now
			<-c.ended
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	names, err := remoting.Dial(ctx, w.config.nameServer, remoting.Credentials{}, nil)
	if err != nil {
		w.note("progress: %v", err)
		return
	}
	defer names.Close()
	var cluster remoting.Cluster
	answer, err := names.Call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err == nil {
		err = remoting.DecodeJSON(answer.Body, &cluster)
	}
	if err != nil {
		w.note("progress: %v", err)
		return
	}
	w.note("progress: the name server knows %d brokers", len(cluster.Brokers))
	for _, b := range cluster.Brokers {
		w.progressAt(ctx, b.Master(), lost)
	}
}

func (w *world) progressAt(ctx context.Context, address string, lost []string) {
	conn, err := remoting.Dial(ctx, address, remoting.Credentials{}, nil)
	if err != nil {
		w.note("progress: %v", err)
		return
	}
	defer conn.Close()
	for _, group := range []string{audit, echo} {
		answer, err := conn.Call(ctx, &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": w.name + "%" + source + "-" + group}})
		if err == nil {
			w.note("members of %s: %s", group, answer.Body)
		}
	}
	for topic, queues := range map[string]int{topicFirst: 4, topicFollow: 2} {
		for queue := range queues {
			fields := map[string]string{"topic": w.name + "%" + topic, "queueId": strconv.Itoa(queue)}
			end := offset(ctx, conn, remoting.MaxOffset, fields)
			for _, group := range []string{audit, echo} {
				fields["consumerGroup"] = w.name + "%" + source + "-" + group
				w.note("%s queue %d: %s is at %s of %s", topic, queue, group, offset(ctx, conn, remoting.QueryConsumerOffset, fields), end)
			}
			w.noteHeld(ctx, conn, topic, queue, lost)
			delete(fields, "consumerGroup")
		}
	}
}

// noteHeld notes the places of the lost events in a queue. Each of lost begins with an event's name.
func (w *world) noteHeld(ctx context.Context, conn *remoting.Conn, topic string, queue int, lost []string) {
	for next := int64(0); ; {
		answer, err := conn.Call(ctx, &remoting.Command{Code: remoting.PullMessage, Ext: map[string]string{
			"consumerGroup": w.name + "%" + source + "-" + audit, "topic": w.name + "%" + topic, "queueId": strconv.Itoa(queue), "queueOffset": strconv.FormatInt(next, 10),
			"maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
		}})
		if err != nil { // the end, too
			return
		}
		records, err := remoting.DecodeRecords(answer.Body)
		if err != nil || len(records) == 0 {
			w.note("%s queue %d from %d: %v", topic, queue, next, err)
			return
		}
		for _, r := range records {
			var n note
			body, err := r.Payload()
			if err == nil {
				err = json.Unmarshal(body, &n)
			}
			if err != nil {
				w.note("%s queue %d, %d: %v", topic, queue, r.QueueOffset, err)
			}
			for _, l := range lost {
				if strings.HasPrefix(l, n.Name+" ") {
					w.note("%s queue %d, %d: %s, stored %s", topic, queue, r.QueueOffset, l, r.Stored.Format(time.StampMilli))
				}
			}
			next = r.QueueOffset + 1
		}
	}
}

func offset(ctx context.Context, conn *remoting.Conn, code remoting.Code, fields map[string]string) string {
	answer, err := conn.Call(ctx, &remoting.Command{Code: code, Ext: fields})
	if err != nil {
		return err.Error()
	}
	return answer.Ext["offset"]
}
