package remoting

import (
	"encoding/json"
	"maps"
	"reflect"
	"testing"
)

// plain has what is on the wire, and what the parser has to leave to encoding/json.
var plain = []string{
	`{"code":310,"language":"GO","version":317,"opaque":12,"flag":0,"remark":"","extFields":{"a":"g","i":"KEYS\u0001a b\u0002TAGS\u0001t\u0002","é":"ü"}}`,
	`{"code":0,"extFields":{"msgId":"7F"},"flag":1,"language":"JAVA","opaque":2147483647,"serializeTypeCurrentRPC":"JSON","version":479}`,
	` { "code" : 1 , "extFields" : { } , "remark" : "a\"b\\c\/d\n\t" } `,
	`{}`, `{"Code":1}`, `{"code":-0}`, `{"code":01}`, `{"code":1.0}`, `{"code":12345678901}`, `{"opaque":2147483648}`, `{"code":null}`,
	`{"opaque":-2147483648}`, `{"code":1,"code":2}`, `{"extFields":{"a":"1"},"extFields":{"b":"2"}}`, `{"extFields":null}`, `{"extFields":{"a":1}}`,
	`{"remark":"\u00e9\ud83d\ude00\b"}`, "{\"remark\":\"\xff\"}", "{\"remark\":\"\x01\"}", `{"remark":"\u007f\u001F"}`, `{"remark":"\`, `{"remark":"\"`, `{"remark":"\u00`,
	`{"code":1}x`, `{"code":1,}`, `{,}`, `{"code"}`, `{"code":}`, `[]`, ``, `{"other":{"a":[1]}}`, `{"code":1 2}`, `{"language":"GO"`,
}

func FuzzHeaderDecodes(f *testing.F) {
	for _, s := range plain {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want header
		wantErr := json.Unmarshal(b, &want)
		got, err := decodeHeader(b)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: got error %v, encoding/json %v", b, err, wantErr)
		}
		if err == nil && !(reflect.DeepEqual(got, want) || len(got.Ext) == 0 && len(want.Ext) == 0) {
			t.Errorf("%q: got %+v, encoding/json %+v", b, got, want)
		}
	})
}

func FuzzHeaderEncodes(f *testing.F) {
	f.Add(10, int32(-1), 3, "remark\n", "name", "KEYS\x01é\xff\x02\"\\<>\u2028")
	f.Fuzz(func(t *testing.T, code int, opaque int32, flag int, remark, name, value string) {
		h := header{Code: Code(code), Language: "GO", Version: Version, Opaque: opaque, Flag: flag, Remark: remark, Ext: map[string]string{name: value, "b": name}}
		standard, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var got, want header
		if err := json.Unmarshal(standard, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(h.append(nil), &got); err != nil {
			t.Fatalf("%q: %v", h.append(nil), err)
		}
		if got.Code != want.Code || got.Opaque != want.Opaque || got.Flag != want.Flag || got.Remark != want.Remark || len(got.Ext) == len(h.Ext) && !maps.Equal(got.Ext, want.Ext) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestPlainHeaders makes sure that what clients send takes the short way.
func TestPlainHeaders(t *testing.T) {
	t.Parallel()
	for _, s := range plain[:2] {
		p := headerParser{b: []byte(s)}
		if p.header(); p.failed || p.at != len(s) {
			t.Errorf("%s: stopped at %d", s, p.at)
		}
	}
}

func BenchmarkHeader(b *testing.B) {
	for _, binary := range []bool{false, true} {
		name := map[bool]string{false: "json", true: "binary"}[binary]
		c := &Command{Code: SendMessageV2, Opaque: 123456, Binary: binary, Ext: map[string]string{
			"a": "producers", "b": "orders", "c": "TBW102", "d": "4", "e": "3", "f": "0", "g": "1700000000000", "h": "0",
			"i": "UNIQ_KEY\x01C0A8010100002A9F0000000000000001\x02KEYS\x01order-1\x02TAGS\x01created\x02SHARDING_KEY\x01order-1\x02",
			"j": "0", "k": "false", "l": "0", "m": "false",
		}, Body: make([]byte, 300)}
		frame, err := c.Append(nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(frame[4:]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/encode", func(b *testing.B) {
			b.ReportAllocs()
			var buffer []byte
			for b.Loop() {
				if buffer, err = c.Append(buffer[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
