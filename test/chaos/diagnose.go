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

// logParked logs the parked events and their reasons.
func (w *world) logParked(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	rows, err := w.pool.Query(ctx, w.ledger.sql.Get("Parked"))
	if err == nil {
		var line string
		_, err = pgx.ForEachRow(rows, []any{&line}, func() error {
			w.logf("parked: %s", line)
			return nil
		})
	}
	if err != nil {
		w.logf("parked: %v", err)
	}
}

// diagnose logs what helps to explain why a schedule does not become quiet: the consumers' offsets in each queue, the messages
// of the lost events, and, of child processes that consume, the stacks of their goroutines.
func (w *world) diagnose(ctx context.Context, lost []string) {
	w.logParked(ctx)
	if w.server != nil {
		for _, s := range w.server.Subscriptions() {
			w.logf("%s has read %s to %v", s.Group, s.Topic, s.Offsets)
		}
		messages, _ := w.server.MessagesSince(0)
		for _, m := range messages {
			var n testEvent
			if json.Unmarshal(m.Body, &n) == nil && slices.ContainsFunc(lost, func(l string) bool { return strings.HasPrefix(l, n.Name+" ") }) {
				w.logf("%s queue %d, %d: %s, id %s, sequence %s after %s", m.Topic, m.Queue, m.Offset, n.Name, m.Properties["CE_id"], m.Properties["CE_sequence"], m.Properties["rf_previous"])
			}
		}
		return
	}
	for _, s := range w.slots {
		if c, ok := s.current().(*child); ok && s.settings.Consumes {
			_ = c.cmd.Process.Signal(syscall.SIGQUIT) // it prints its stacks and ends
			<-c.ended
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	names, err := remoting.Dial(ctx, w.config.nameServer, remoting.Credentials{}, nil)
	if err != nil {
		w.logf("progress: %v", err)
		return
	}
	defer names.Close()
	var cluster remoting.Cluster
	response, err := names.Call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err == nil {
		err = remoting.DecodeJSON(response.Body, &cluster)
	}
	if err != nil {
		w.logf("progress: %v", err)
		return
	}
	w.logf("progress: the name server has %d brokers", len(cluster.Brokers))
	for _, b := range cluster.Brokers {
		w.diagnoseBroker(ctx, b.Master(), lost)
	}
}

func (w *world) diagnoseBroker(ctx context.Context, address string, lost []string) {
	conn, err := remoting.Dial(ctx, address, remoting.Credentials{}, nil)
	if err != nil {
		w.logf("progress: %v", err)
		return
	}
	defer conn.Close()
	for _, group := range []string{audit, echo} {
		response, err := conn.Call(ctx, &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": w.name + "%" + source + "-" + group}})
		if err == nil {
			w.logf("members of %s: %s", group, response.Body)
		}
	}
	for topic, queues := range map[string]int{topicFirst: 4, topicFollow: 2} {
		for queue := range queues {
			fields := map[string]string{"topic": w.name + "%" + topic, "queueId": strconv.Itoa(queue)}
			end := offset(ctx, conn, remoting.MaxOffset, fields)
			for _, group := range []string{audit, echo} {
				fields["consumerGroup"] = w.name + "%" + source + "-" + group
				w.logf("%s queue %d: %s is at %s of %s", topic, queue, group, offset(ctx, conn, remoting.QueryConsumerOffset, fields), end)
			}
			w.logLostMessages(ctx, conn, topic, queue, lost)
			delete(fields, "consumerGroup")
		}
	}
}

// logLostMessages logs the offsets of the lost events in a queue. Each element of lost begins with an event's name.
func (w *world) logLostMessages(ctx context.Context, conn *remoting.Conn, topic string, queue int, lost []string) {
	for next := int64(0); ; {
		response, err := conn.Call(ctx, &remoting.Command{Code: remoting.PullMessage, Ext: map[string]string{
			"consumerGroup": w.name + "%" + source + "-" + audit, "topic": w.name + "%" + topic, "queueId": strconv.Itoa(queue), "queueOffset": strconv.FormatInt(next, 10),
			"maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
		}})
		if err != nil { // also at the end of the queue
			return
		}
		records, err := remoting.DecodeRecords(response.Body)
		if err != nil || len(records) == 0 {
			w.logf("%s queue %d from %d: %v", topic, queue, next, err)
			return
		}
		for _, r := range records {
			var n testEvent
			body, err := r.Payload()
			if err == nil {
				err = json.Unmarshal(body, &n)
			}
			if err != nil {
				w.logf("%s queue %d, %d: %v", topic, queue, r.QueueOffset, err)
			}
			for _, l := range lost {
				if strings.HasPrefix(l, n.Name+" ") {
					w.logf("%s queue %d, %d: %s, stored %s", topic, queue, r.QueueOffset, l, r.Stored.Format(time.StampMilli))
				}
			}
			next = r.QueueOffset + 1
		}
	}
}

func offset(ctx context.Context, conn *remoting.Conn, code remoting.Code, fields map[string]string) string {
	response, err := conn.Call(ctx, &remoting.Command{Code: code, Ext: fields})
	if err != nil {
		return err.Error()
	}
	return response.Ext["offset"]
}
