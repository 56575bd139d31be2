// whisper.cpp as it comes: `whisper-cpp-worker MODEL.bin THREADS`, one JSON line in, one out. Recordings are WAV files as the
// bench writes them: a header of 44 bytes, then 16 kHz, mono, 16 bits.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "whisper.h"

using Clock = std::chrono::steady_clock;

static const size_t header_bytes = 44;

struct First {
    Clock::time_point start;
    double seconds = -1;
};

static double since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// The string that stands behind a key; questions are flat objects of strings.
static std::string value_of(const std::string & json, const std::string & key) {
    size_t at = json.find("\"" + key + "\":\"");
    std::string value;
    if (at == std::string::npos) return value;
    for (at += key.size() + 4; at < json.size() && json[at] != '"'; at++) {
        if (json[at] == '\\') at++;
        value += json[at];
    }
    return value;
}

static std::string quoted(const std::string & text) {
    std::string out = "\"";
    for (unsigned char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += c < 0x20 ? ' ' : (char) c;
    }
    return out + "\"";
}

static std::vector<float> samples_of(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<float> samples;
    for (size_t at = header_bytes; at + 1 < bytes.size(); at += 2) {
        const uint16_t value = (uint8_t) bytes[at] | (uint8_t) bytes[at + 1] << 8;
        samples.push_back((int16_t) value / 32768.0f);
    }
    return samples;
}

static std::string listen(whisper_context * context, int threads, const std::string & path, const std::string & mode) {
    First first { Clock::now() };
    const std::vector<float> samples = samples_of(path);
    if (samples.empty()) return "{\"error\":" + quoted("there are no samples in " + path) + "}";
    const bool beams = mode == "beam 5";
    whisper_full_params params = whisper_full_default_params(beams ? WHISPER_SAMPLING_BEAM_SEARCH : WHISPER_SAMPLING_GREEDY);
    params.n_threads = threads;
    params.language = "en";
    params.print_progress = false;
    params.print_timestamps = false;
    params.greedy.best_of = 1;
    params.beam_search.beam_size = 5;
    params.new_segment_callback_user_data = &first;
    params.new_segment_callback = [](whisper_context *, whisper_state *, int, void * data) {
        First & first = *(First *) data;
        if (first.seconds < 0) first.seconds = since(first.start);
    };
    if (whisper_full(context, params, samples.data(), (int) samples.size()) != 0) return "{\"error\":\"it failed\"}";
    std::string text;
    for (int i = 0; i < whisper_full_n_segments(context); i++) text += whisper_full_get_segment_text(context, i);
    const double seconds = since(first.start);
    const double first_segment = first.seconds < 0 ? seconds : first.seconds;
    return "{\"text\":" + quoted(text) + ",\"seconds\":" + std::to_string(seconds) +
           ",\"firstSegment\":" + std::to_string(first_segment) + "}";
}

int main(int argc, char ** argv) {
    if (argc != 3) return 2;
    whisper_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    whisper_context_params options = whisper_context_default_params();
    options.use_gpu = false;
    whisper_context * context = whisper_init_from_file_with_params(argv[1], options);
    if (context == nullptr) return 1;
    std::cout << "{\"about\":" << quoted(std::string(whisper_version()) + ", built for this machine, f16") << "}" << std::endl;
    for (std::string line; std::getline(std::cin, line);)
        std::cout << listen(context, std::atoi(argv[2]), value_of(line, "path"), value_of(line, "mode")) << std::endl;
    whisper_free(context);
    return 0;
}
