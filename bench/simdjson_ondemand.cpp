// The rival in C++: simdjson on-demand reads the same fields of the same frames to doubles. All frames in one call, no
// Python, no table, no sequence check. simdjson picks its own kernel for this CPU; the flags are in prepare.py.
//
// Three ways to write it, the fastest of which counts. None checks what kind of message it is, and on-demand validates
// only what it reads: both in the rival's favour. Frames lie end to end in one padded buffer, so nothing is copied.

#include <cstdint>
#include <cstring>

#include <simdjson.h>

namespace ondemand = simdjson::ondemand;

struct Row {
    double value[4];  // bid, bid size, ask, ask size
    int64_t update;
    int64_t event_ms;
    uint64_t symbol_at;  // offset into the buffer
    uint64_t symbol_size;
};

namespace {

struct Reader {
    const char* buffer;
    Row* row;
    int error = 0;  // error codes OR-ed, looked at once a frame

    void number(ondemand::value value, int place) {
        error |= value.get_double_in_string().get(row->value[place]);
    }

    void integer(ondemand::value value, int64_t& into) { error |= value.get_int64().get(into); }

    // As it stands in the frame, escapes and all.
    void symbol(ondemand::value value) {
        ondemand::raw_json_string name;
        error |= value.get_raw_json_string().get(name);
        if (error) return;
        row->symbol_at = name.raw() - buffer;
        row->symbol_size = static_cast<const char*>(rawmemchr(name.raw(), '"')) - name.raw();
    }

    void quote(ondemand::object object) {
        for (auto field : object) {
            ondemand::raw_json_string key;
            ondemand::value value;
            error |= field.key().get(key);
            error |= field.value().get(value);
            if (error) return;
            take(key.raw(), value);
        }
    }

    void take(const char* key, ondemand::value value) {
        if (key[1] == '"') {
            switch (key[0]) {
                case 's': symbol(value); break;
                case 'u': integer(value, row->update); break;
                case 'T': integer(value, row->event_ms); break;
                case 'b': number(value, 0); break;
                case 'B': number(value, 1); break;
                case 'a': number(value, 2); break;
                case 'A': number(value, 3); break;
                default: break;
            }
        } else if (key[0] == 'd' && key[1] == 'a' && key[2] == 't' && key[3] == 'a' && key[4] == '"') {
            ondemand::object inner;
            error |= value.get_object().get(inner);
            if (!error) quote(inner);
        }
    }

    template <bool time_first>
    void look_up(ondemand::object object) {
        ondemand::value value;
        const auto find = [&](const char* key) {
            error |= object.find_field_unordered(key).get(value);
            return !error;
        };
        if (find("u")) integer(value, row->update);
        if (time_first && find("T")) integer(value, row->event_ms);
        if (find("s")) symbol(value);
        if (find("b")) number(value, 0);
        if (find("B")) number(value, 1);
        if (find("a")) number(value, 2);
        if (find("A")) number(value, 3);
        if (!time_first && find("T")) integer(value, row->event_ms);
    }
};

ondemand::parser parser;

}  // namespace

// `way`: 0 one pass over the fields in the order they come, 1 and 2 looked up by key, time before or after the prices.
// Offsets hold count + 1 ends. Returns how many frames could not be read.
extern "C" int64_t quotes(
    const char* buffer, uint64_t capacity, const uint64_t* offsets, uint64_t count, int way, Row* rows
) {
    int64_t failed = 0;
    for (uint64_t i = 0; i < count; i++) {
        Reader reader{buffer, rows + i};
        ondemand::document document;
        ondemand::object object;
        reader.error |= parser.iterate(buffer + offsets[i], offsets[i + 1] - offsets[i], capacity - offsets[i])
                            .get(document);
        if (!reader.error) reader.error |= document.get_object().get(object);
        if (!reader.error && way == 0) {
            reader.quote(object);
        } else if (!reader.error) {
            ondemand::object inner;
            if (memcmp(buffer + offsets[i], "{\"stream\"", 9) == 0) {
                reader.error |= object.find_field("data").get_object().get(inner);
                object = inner;
            }
            if (!reader.error) way == 1 ? reader.look_up<true>(object) : reader.look_up<false>(object);
        }
        failed += reader.error != 0;
    }
    return failed;
}

extern "C" uint64_t padding() { return simdjson::SIMDJSON_PADDING; }

// The one chosen at run time.
extern "C" const char* kernel() {
    static const std::string name = simdjson::get_active_implementation()->name();
    return name.c_str();
}
