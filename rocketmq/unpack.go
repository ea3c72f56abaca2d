package rocketmq

import (
	"context"
	"sync"

	"github.com/rocketflow/rocketflow/broker"
)

// maxUnpacked is how many bytes of decompressed bodies a consumer holds before it decompresses no other. What waits in memory is counted
// as it is stored, of which a few bytes can stand for Config.MaxMessage, in as many messages as are handled at once.
const maxUnpacked = 32 << 20

// unpack returns what read returns, a delivery whose body is decompressed if packed is true, as soon as the consumer has room for it: that
// is known only once it is decompressed, so there must be room for the largest until then. release must be called when the delivery is
// handled. It returns false if stop is closed first.
func (k *consumer) unpack(stop <-chan struct{}, packed bool, read func(maxBody int) broker.Delivery) (d broker.Delivery, release func(), ok bool) {
	most := k.client.config.MaxMessage
	if !packed {
		return read(most), func() {}, true
	}
	if !k.awaitRoom(stop, int64(most)) {
		return d, func() {}, false
	}
	d = read(most)
	held := 0
	if d.Unreadable == nil {
		held = min(len(d.Body), most)
	}
	k.unpacked.Release(int64(most - held))
	return d, func() { k.unpacked.Release(int64(held)) }, true
}

// awaitRoom takes room for so many bytes, or returns false if stop is closed first.
func (k *consumer) awaitRoom(stop <-chan struct{}, bytes int64) bool {
	if k.unpacked.TryAcquire(bytes) {
		return true
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	})
	defer watching.Wait()
	defer cancel()
	return k.unpacked.Acquire(ctx, bytes) == nil
}
