package rocketmqtest_test

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// benchmark runs do on a few connections with many callers each; it is given a call that fails the benchmark.
func benchmark(b *testing.B, do func(call func(code remoting.Code, ext fields, body []byte) *remoting.Command)) {
	mq := rocketmqtest.RunT(b)
	mq.CreateTopic(wireTopic, 2)
	var conns []*remoting.Conn
	for range 4 {
		conn, err := remoting.Dial(b.Context(), mq.BrokerAddr(), remoting.Credentials{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	var callers atomic.Int32
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		conn := conns[int(callers.Add(1))%len(conns)]
		for p.Next() {
			do(func(code remoting.Code, ext fields, body []byte) *remoting.Command {
				a, err := conn.Call(b.Context(), &remoting.Command{Code: code, Ext: ext, Body: body})
				if err != nil {
					b.Error(err)
				}
				return a
			})
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkSend(b *testing.B) {
	body := make([]byte, 512)
	benchmark(b, func(call func(remoting.Code, fields, []byte) *remoting.Command) {
		call(remoting.SendMessage, sendRequest(wireTopic, time.Now(), "UNIQ_KEY", "key"), body)
	})
}

func BenchmarkTransaction(b *testing.B) {
	body := make([]byte, 512)
	benchmark(b, func(call func(remoting.Code, fields, []byte) *remoting.Command) {
		half := call(remoting.SendMessage, sendRequest(wireTopic, time.Now(), "UNIQ_KEY", "key", "TRAN_MSG", "true", "PGROUP", wireGroup), body)
		if half == nil {
			return
		}
		_, offset, _ := remoting.ParseOffsetID(half.Ext["msgId"])
		call(remoting.EndTransaction, fields{
			"producerGroup": wireGroup, "tranStateTableOffset": half.Ext["queueOffset"], "commitLogOffset": strconv.FormatInt(offset, 10),
			"commitOrRollback": strconv.Itoa(commit), "fromTransactionCheck": "false",
		}, nil)
	})
}
