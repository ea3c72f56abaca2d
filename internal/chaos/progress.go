package main

import (
	"context"
	"strconv"
	"syscall"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// progress notes how far the consumers are in each queue of a real broker, and has the consumers' processes note what
// they are at: for a schedule that doesn't come to rest.
func (w *world) progress(ctx context.Context) {
	if w.server != nil {
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
		w.progressAt(ctx, b.Master())
	}
}

func (w *world) progressAt(ctx context.Context, address string) {
	conn, err := remoting.Dial(ctx, address, remoting.Credentials{}, nil)
	if err != nil {
		w.note("progress: %v", err)
		return
	}
	defer conn.Close()
	for topic, queues := range map[string]int{topicFirst: 4, topicFollow: 2} {
		for queue := range queues {
			fields := map[string]string{"topic": w.name + "%" + topic, "queueId": strconv.Itoa(queue)}
			end := offset(ctx, conn, remoting.MaxOffset, fields)
			for _, group := range []string{audit, echo} {
				fields["consumerGroup"] = w.name + "%" + group
				w.note("%s queue %d: %s is at %s of %s", topic, queue, group, offset(ctx, conn, remoting.QueryConsumerOffset, fields), end)
			}
			delete(fields, "consumerGroup")
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
