package neighbours

import (
	"maps"
	"strings"
	"time"
)

// sent is what the client in Java sends in one call, and what has to become of it.
type sent struct {
	name     string         // the value of the property "case" of all messages
	how      map[string]any // besides the messages
	messages []map[string]any

	// Each message has one effect, unless one of these is set.
	nothing bool   // no effect and no dead letter
	dead    string // a part of the reason of each dead letter

	eventType, subject, source, contentType, original string // of the events
	headers                                           map[string]string
}

const tag = "parcel"

// allSent returns what the client sends to a topic.
func allSent(topic string) []sent {
	json := []byte(`{"order":"o-1"}`)
	plain := func(more ...any) map[string]any {
		m := map[string]any{"tag": tag, "body": json}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	without := func(m map[string]any, name string) map[string]any {
		m = maps.Clone(m)
		delete(m, name)
		return m
	}
	one := func(m map[string]any) []map[string]any { return []map[string]any{m} }
	long := []byte(`"` + strings.Repeat("long ", 4000) + `"`)
	required := map[string]any{"id": "7 é", "source": "https://example.com/java", "type": "order.shipped"}
	all := maps.Clone(required)
	maps.Copy(all, map[string]any{
		"subject": "o-1", "time": time.Now().In(time.FixedZone("", 8*3600)).Format(time.RFC3339Nano), "datacontenttype": "application/json; charset=utf-8",
		"dataschema": "https://example.com/schema", "comexampleext": "x",
	})
	event := func(attributes map[string]any, more ...any) map[string]any {
		m := plain(append([]any{"event", attributes}, more...)...)
		delete(m, "tag") // CloudEvents' SDK sets none
		return m
	}
	raw := func(body string, properties ...string) map[string]any { // by a program without an SDK
		p := map[string]any{}
		for i := 0; i < len(properties); i += 2 {
			p[properties[i]] = properties[i+1]
		}
		return map[string]any{"body": []byte(body), "properties": p}
	}
	const structured = "application/cloudevents+json"

	list := []sent{
		{
			name: "plain", messages: one(plain("keys", "k-1 k-2", "properties", map[string]any{"tenant": "acme"})),
			eventType: tag, subject: "k-1", contentType: "application/json", headers: map[string]string{"tenant": "acme"},
		},
		{name: "without tag and keys", messages: one(without(plain(), "tag")), contentType: "application/json"},
		{name: "without keys", messages: one(plain()), eventType: tag, contentType: "application/json"},
		{name: "of another encoding", messages: one(plain("body", []byte{0xFF, 0})), dead: "no UTF-8"},
		{name: "ordered", how: map[string]any{"queue": 1}, messages: []map[string]any{
			plain("properties", map[string]any{"n": "1"}), plain("properties", map[string]any{"n": "2"}), plain("properties", map[string]any{"n": "3"}),
		}, eventType: tag},
		{name: "delay level", messages: one(plain("level", 1)), eventType: tag},
		{name: "timer", messages: one(plain("delay", 1500)), eventType: tag},
		{name: "committed", how: map[string]any{"transaction": "COMMIT_MESSAGE"}, messages: one(plain()), eventType: tag},
		{name: "checked", how: map[string]any{"transaction": "UNKNOW"}, messages: one(plain()), eventType: tag},
		{name: "rolled back", how: map[string]any{"transaction": "ROLLBACK_MESSAGE"}, messages: one(plain()), nothing: true},
		// The same content several times: what tells members apart is their keys.
		{name: "batch", how: map[string]any{"batch": true}, messages: []map[string]any{plain(), plain(), plain("keys", "k-3")}, eventType: tag},
		{name: "batch without tags", how: map[string]any{"batch": true}, messages: []map[string]any{without(plain(), "tag"), without(plain(), "tag")}},
		{
			name: "binary", messages: one(event(all)), eventType: "order.shipped", subject: "o-1", source: "https://example.com/java", original: "7 é",
			contentType: "application/json; charset=utf-8", headers: map[string]string{"comexampleext": "x"},
		},
		{
			name: "structured", messages: one(event(withID(all, "structured"), "structured", true)), eventType: "order.shipped", subject: "o-1",
			source: "https://example.com/java", original: "structured", contentType: "application/json; charset=utf-8",
		},
		{
			name: "binary with required attributes only", messages: one(event(withID(required, "b"))), eventType: "order.shipped",
			source: "https://example.com/java", contentType: "application/json", original: "b",
		},
		{
			name: "structured with required attributes only", messages: one(event(withID(required, "s"), "structured", true)), eventType: "order.shipped",
			source: "https://example.com/java", contentType: "application/json", original: "s",
		},
		{name: "binary without data", messages: one(without(event(withID(required, "no data")), "body")), dead: "the event has no data"},
		{name: "structured without data", messages: one(without(event(withID(required, "none"), "structured", true), "body")), dead: "the event has no data"},
		{
			name: "binary without an id", dead: "CE_id",
			messages: one(raw(`{}`, "CE_specversion", "1.0", "CE_source", "s", "CE_type", "order.shipped")),
		},
		{
			name: "structured without an id", dead: "property id",
			messages: one(raw(`{"specversion":"1.0","source":"s","type":"order.shipped"}`, "CE_contenttype", structured)),
		},
		{name: "structured that is none", messages: one(raw("nonsense", "CE_contenttype", structured)), dead: "no JSON"},
		{name: "another format", messages: one(raw("x", "CE_contenttype", "application/cloudevents+avro")), dead: structured},
		{
			name: "batch of events in one message", dead: "a batch of events",
			messages: one(raw("[]", "CE_contenttype", "application/cloudevents-batch+json")),
		},
		{name: "another version", messages: one(raw("{}", "CE_specversion", "0.3", "CE_id", "i", "CE_source", "s", "CE_type", "t")), dead: "CE_specversion"},
		{name: "no version", messages: one(raw("{}", "CE_id", "i", "CE_source", "s", "CE_type", "t")), dead: "CE_specversion"},
		{
			name: "a time that is none", dead: "CE_time",
			messages: one(raw("{}", "CE_specversion", "1.0", "CE_id", "i", "CE_source", "s", "CE_type", "t", "CE_time", "yesterday")),
		},
		{
			name: "too long", how: map[string]any{"compression": "LZ4"}, dead: "MaxMessage",
			messages: one(plain("body", []byte(strings.Repeat("long ", maxMessage/4)))),
		},
	}
	for _, method := range []string{"ZLIB", "LZ4", "ZSTD"} {
		list = append(list, sent{name: method, how: map[string]any{"compression": method}, messages: one(plain("body", long)), eventType: tag})
	}
	for i := range list {
		for _, m := range list[i].messages {
			properties, _ := m["properties"].(map[string]any)
			properties = maps.Clone(properties)
			if properties == nil {
				properties = map[string]any{}
			}
			properties["case"] = list[i].name
			m["topic"], m["properties"] = topic, properties
		}
	}
	return list
}

// withID returns attributes with another id.
func withID(attributes map[string]any, id string) map[string]any {
	attributes = maps.Clone(attributes)
	attributes["id"] = id
	return attributes
}
