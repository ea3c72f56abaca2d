package doctor

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// probe sends a half message to the first queue of a topic and rolls it back. No consumer sees it. If the roll-back is lost, the
// broker checks the half message back; no row has its id, so that it is rolled back then.
func (b *master) probe(ctx context.Context, topic, group string) error {
	key := uuid.Must(uuid.NewV7()).String()
	response, err := b.conn.Call(ctx, &remoting.Command{Code: remoting.SendMessage, Body: []byte("rocketflow doctor"), Ext: map[string]string{
		"producerGroup": group, "topic": topic, "defaultTopic": remoting.DefaultTopic, "defaultTopicQueueNums": "4", "queueId": "0",
		"sysFlag": strconv.Itoa(remoting.TransactionPrepared), "bornTimestamp": strconv.FormatInt(time.Now().UnixMilli(), 10), "flag": "0",
		"properties":     remoting.EncodeProperties(map[string]string{"UNIQ_KEY": key, "TRAN_MSG": "true", "PGROUP": group, "CE_id": key}),
		"reconsumeTimes": "0", "unitMode": "false", "maxReconsumeTimes": "0", "batch": "false", "bname": b.name,
	}})
	if err != nil {
		return err
	}
	_, commitLog, err := remoting.ParseOffsetID(response.Ext["msgId"])
	if err != nil {
		return err
	}
	_, err = b.conn.Call(ctx, &remoting.Command{Code: remoting.EndTransaction, Ext: map[string]string{
		"topic": topic, "producerGroup": group, "tranStateTableOffset": response.Ext["queueOffset"], "commitLogOffset": strconv.FormatInt(commitLog, 10),
		"commitOrRollback": strconv.Itoa(remoting.TransactionRollback), "fromTransactionCheck": "false", "msgId": key, "transactionId": response.Ext["transactionId"], "bname": b.name,
	}})
	return err
}
