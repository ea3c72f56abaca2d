package remoting

import (
	"bytes"
	"compress/zlib"
	"errors"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sample() *Record {
	return &Record{
		Topic: "orders", Queue: 3, QueueOffset: 4, CommitLog: 5, Flag: 6, SysFlag: TransactionCommit,
		Born: time.UnixMilli(1700000000000), Stored: time.UnixMilli(1700000000001),
		BornHost: netip.MustParseAddrPort("10.0.0.1:1234"), StoreHost: netip.MustParseAddrPort("10.0.0.2:10911"),
		Reconsumed: 7, PreparedOffset: 8, Properties: map[string]string{"KEYS": "a b", "UNIQ_KEY": "X"}, Body: []byte("body"),
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	a, b := sample(), sample()
	b.BornHost = netip.MustParseAddrPort("[2001:db8::1]:99")
	b.Body = []byte{}
	bytes, err := a.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes, err = b.Append(bytes); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRecords(bytes)
	if err != nil || len(got) != 2 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	b.SysFlag |= flagBornV6
	if size := a.Size() + b.Size(); size != len(bytes) {
		t.Errorf("%d bytes, Size says %d", len(bytes), size)
	}
	if !reflect.DeepEqual(got[0], a) || !reflect.DeepEqual(got[1], b) {
		t.Errorf("got %+v and %+v", got[0], got[1])
	}
	bytes[len(bytes)/4]++ // the first record's body checksum no longer holds, or a field is off
	if r, err := DecodeRecords(bytes[:len(bytes)-1]); err == nil {
		t.Errorf("a cut record was decoded: %+v", r)
	}
}

// A sender may name any number of milliseconds. What isn't a time that the rest of the world can express is none.
func TestTimesAreInstants(t *testing.T) {
	t.Parallel()
	for ms, want := range map[int64]time.Time{
		0: time.Unix(0, 0), 253402300799999: time.UnixMilli(253402300799999), 253402300800000: {}, 1 << 62: {}, math.MinInt64: {}, -300_000_000_000_000: {},
	} {
		r := sample()
		r.Born, r.Stored = time.UnixMilli(ms), time.UnixMilli(ms)
		b, err := r.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRecords(b)
		if err != nil || !got[0].Born.Equal(want) || !got[0].Stored.Equal(want) {
			t.Errorf("%d: born %v, stored %v (%v), want %v", ms, got[0].Born, got[0].Stored, err, want)
		}
	}
}

// Members of a batch have the batch's unique key behind their own, and other properties of the batch.
func TestUniqueKeyOfABatchsMember(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Appended = map[string]string{"KEYS": "c", "UNIQ_KEY": "batch", "WAIT": "true"}
	bytes, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Size() != len(bytes) {
		t.Errorf("%d bytes, Size says %d", len(bytes), r.Size())
	}
	got, err := DecodeRecords(bytes)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"KEYS": "c", "UNIQ_KEY": "X", "WAIT": "true"}; !maps.Equal(got[0].Properties, want) {
		t.Errorf("got %v, want %v", got[0].Properties, want)
	}
}

func TestRecordTooLong(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Topic = strings.Repeat("x", MaxTopic+1)
	if _, err := r.Append(nil); err == nil {
		t.Error("long topic was encoded")
	}
	r = sample()
	r.Properties["long"] = strings.Repeat("x", MaxProperties)
	if _, err := r.Append(nil); err == nil {
		t.Error("long properties were encoded")
	}
}

func TestPayload(t *testing.T) {
	t.Parallel()
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write([]byte("hello"))
	w.Close()
	r := &Record{SysFlag: FlagCompressed, Body: z.Bytes()}
	if b, err := r.Payload(); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	r.SysFlag |= 1 << 8
	if _, err := r.Payload(); !errors.Is(err, ErrMalformed) {
		t.Errorf("LZ4: got %v", err)
	}
	r = &Record{SysFlag: FlagCompressed, Body: []byte("no zlib")}
	if _, err := r.Payload(); !errors.Is(err, ErrMalformed) {
		t.Errorf("garbage: got %v", err)
	}
}

func TestOffsetID(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1:10911", "[2001:db8::1]:10911"} {
		want := netip.MustParseAddrPort(host)
		got, offset, err := ParseOffsetID(OffsetID(want, 1<<40))
		if got != want || offset != 1<<40 || err != nil {
			t.Errorf("%s: got %v, %d, %v", host, got, offset, err)
		}
	}
	if id := OffsetID(netip.MustParseAddrPort("127.0.0.1:10911"), 255); id != "7F00000100002A9F00000000000000FF" {
		t.Errorf("got %s", id)
	}
	for _, id := range []string{"", "zz", "7F0000010000"} {
		if _, _, err := ParseOffsetID(id); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

func TestQuoteKeys(t *testing.T) {
	t.Parallel()
	var c Cluster
	in := `{"brokerAddrTable":{"b":{"brokerAddrs":{0:"h:1", 1 :"no", 12:"h:2"},"brokerName":"a,{3:\"x"}}}`
	if err := DecodeJSON([]byte(strings.Replace(in, ` 1 :"no",`, "", 1)), &c); err != nil {
		t.Fatal(err)
	}
	b := c.Brokers["b"]
	if b.Master() != "h:1" || b.Addresses["12"] != "h:2" || b.Name != `a,{3:"x` {
		t.Errorf("got %+v", b)
	}
}

func FuzzDecodeRecords(f *testing.F) {
	b, _ := sample().Append(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := DecodeRecords(b)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("error %v is not ErrMalformed", err)
		}
		if r, size := Salvage(b, err); size > len(b) || len(r.Body) > len(b) {
			t.Errorf("%d of %d bytes salvaged: %+v", size, len(b), r)
		}
		for _, r := range records {
			r.Payload()
			for _, at := range []time.Time{r.Born, r.Stored} {
				if _, err := at.UTC().MarshalJSON(); err != nil {
					t.Errorf("time %v", at)
				}
			}
			again, err := r.Append(nil)
			if err != nil {
				continue
			}
			got, err := DecodeRecords(again)
			if err != nil || got[0].Topic != r.Topic || !bytes.Equal(got[0].Body, r.Body) || !maps.Equal(got[0].Properties, r.Properties) {
				t.Errorf("%+v became %+v, %v", r, got, err)
			}
		}
	})
}

// TestSalvage: what a damaged record still tells is kept, and the rest of it as bytes.
func TestSalvage(t *testing.T) {
	t.Parallel()
	damage := errors.New("damage")
	encode := func(alter func(b []byte) []byte) []byte {
		b, err := sample().Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return alter(b)
	}
	const bodyLength = 84
	for _, c := range []struct {
		name       string
		b          []byte
		size       bool // is known
		body       bool // is readable
		offset     int64
		properties bool
	}{
		{"checksum", encode(func(b []byte) []byte { b[8]++; return b }), true, true, 4, true},
		{"magic", encode(func(b []byte) []byte { b[4]++; return b }), true, true, 4, true},
		{"length of the body", encode(func(b []byte) []byte { b[bodyLength] = 0xff; return b }), true, false, 4, false},
		{"size", encode(func(b []byte) []byte { b[0] = 0xff; return b }), false, true, 4, true},
		{"length of the properties", encode(func(b []byte) []byte { b[len(b)-len("KEYS.a b.UNIQ_KEY.X.")-2] = 0xff; return b }), true, true, 4, false},
		{"cut", encode(func(b []byte) []byte { return b[:20] }), false, false, 0, false},
		{"nothing", nil, false, false, 0, false},
	} {
		r, size := Salvage(c.b, damage)
		if (size == len(c.b) && size > 0) != c.size || r.QueueOffset != c.offset || r.Damage != damage ||
			(string(r.Body) == "body") != c.body || !c.body && !bytes.Equal(r.Body, c.b) || (r.Properties["UNIQ_KEY"] == "X") != c.properties {
			t.Errorf("%s: got %+v, size %d of %d", c.name, r, size, len(c.b))
		}
	}
	r := sample()
	r.Properties = map[string]string{"a": "b\x02c"} // the value ends at the separator, and the rest has no name
	b, err := r.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeRecords(b); err != nil || got[0].Damage == nil || got[0].Properties["a"] != "b" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzDecodeProperties(f *testing.F) {
	f.Add("KEYS\x01a b\x02TAGS\x01t\x02")
	f.Add("a\x01\x02\x01b\x02c")
	f.Fuzz(func(t *testing.T, s string) {
		p := DecodeProperties(s)
		for name, value := range p {
			if !ValidProperty(name) || name == "" {
				t.Errorf("name %q", name)
			}
			if !ValidProperty(value) {
				delete(p, name) // \x01 in a value: kept when reading, refused when writing
			}
		}
		if got := DecodeProperties(EncodeProperties(p)); !maps.Equal(got, p) {
			t.Errorf("%q became %q", p, got)
		}
	})
}

// A broker keeps an offset for whatever queue a client names; that of one group must not keep the offsets of others from being read.
func TestOffsetsOfAnyQueueAreDecoded(t *testing.T) {
	t.Parallel()
	var all struct {
		Offsets map[string]map[string]int64 `json:"offsetTable"`
	}
	const body = `{"dataVersion":{"counter":3},"offsetTable":{"orders@billing":{0:12,1:-5},"orders@other":{-1:7,-2147483648:1,2147483647:3}}}`
	if err := DecodeJSON([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]int64{
		"orders@billing": {"0": 12, "1": -5},
		"orders@other":   {"-1": 7, "-2147483648": 1, "2147483647": 3},
	}
	if !reflect.DeepEqual(all.Offsets, want) {
		t.Errorf("got %v, want %v", all.Offsets, want)
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:1"}},{}],"queueDatas":[{"readQueueNums":65536},{"readQueueNums":1}]}`))
	f.Add([]byte(`{"brokerAddrTable":{"b":{"brokerAddrs":{0:"127.0.0.1:1"}}},"consumerIdList":["a"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		route, err := DecodeRoute(b)
		cluster, clusterErr := DecodeCluster(b)
		members, membersErr := DecodeMembers(b)
		for _, err := range []error{err, clusterErr, membersErr} {
			if err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v is not ErrMalformed", err)
			}
		}
		names, queues := map[string]bool{}, 0
		for _, q := range route.Queues {
			queues += q.Read
		}
		for _, broker := range route.Brokers {
			if names[broker.Name] || len(broker.Addresses) > maxAddresses {
				t.Errorf("broker %q with %d addresses, listed before: %v", broker.Name, len(broker.Addresses), names[broker.Name])
			}
			names[broker.Name] = true
		}
		if max(len(names), len(route.Queues), len(cluster.Brokers)) > MaxBrokers || queues > maxQueues || len(members) > maxMembers {
			t.Errorf("%d brokers, %d queues in %d parts, %d in the cluster, %d members", len(names), queues, len(route.Queues), len(cluster.Brokers), len(members))
		}
	})
}
