package saga

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/rocketflow/rocketflow"
)

// A payload that decodes is one that arm encoded: it is the same after another round trip.
func FuzzDecodeDeadline(f *testing.F) {
	f.Add([]byte(`{"saga":"order","key":"o1","state":"unpaid","revision":1}`), "order/o1", "unpaid")
	f.Add([]byte(`{"saga":"order","key":"o1","state":"unpaid","revision":0}`), "order/o1", "unpaid")
	f.Add([]byte(`{"saga":"other","key":"o1"}`), "other/o1", "")
	f.Add([]byte(`null`), "", "")
	f.Add([]byte(`[`), "order/", "x")
	f.Fuzz(func(t *testing.T, body []byte, key, name string) {
		p, err := decodeDeadline(rocketflow.Event{Body: body, TimeoutKey: key, TimeoutName: name}, "order")
		if err != nil {
			if !errors.Is(err, rocketflow.ErrUndecodable) {
				t.Errorf("%v does not match ErrUndecodable", err)
			}
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := decodeDeadline(rocketflow.Event{Body: again, TimeoutKey: key, TimeoutName: name}, "order")
		if err != nil || p != q {
			t.Errorf("%+v became %+v, %v", p, q, err)
		}
	})
}
