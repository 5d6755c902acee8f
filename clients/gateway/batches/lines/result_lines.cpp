#include "clients/gateway/batches/lines/result_lines.hpp"

#include <algorithm>
#include <span>

#include "clients/gateway/api/errors.hpp"
#include "clients/gateway/encoding/json_text.hpp"
#include "common/model/identity/digest.hpp"
#include "common/wire/embed_batch.hpp"

namespace tessera::gateway {
namespace {

constexpr std::size_t kNameDigits = 24;

template <typename T>
std::vector<T> part_of(const std::vector<T>& all, std::size_t first, std::size_t count) {
  if (all.empty()) {
    return {};
  }
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace

std::string LineNames::name(std::uint64_t line, std::string_view what) const {
  const std::string text = batch_id_ + "/" + std::string(what) + "/" + std::to_string(line);
  return std::string(what) + "_" +
         to_hex(blake2b(std::as_bytes(std::span(text)))).substr(0, kNameDigits);
}

std::string LineNames::response_begin(std::uint64_t line, std::string_view custom_id,
                                      int status) const {
  return R"({"id":")" + name(line, "batch_req") + R"(","custom_id":)" + json_string(custom_id) +
         R"(,"response":{"status_code":)" + std::to_string(status) + R"(,"request_id":")" +
         name(line, "req") + R"(","body":)";
}

std::string LineNames::unrun(std::uint64_t line, std::string_view custom_id, std::string_view code,
                             std::string_view message) const {
  return R"({"id":")" + name(line, "batch_req") + R"(","custom_id":)" + json_string(custom_id) +
         R"(,"response":null,"error":{"code":)" + json_string(code) + R"(,"message":)" +
         json_string(message) + "}}\n";
}

std::string LineNames::refused(std::uint64_t line, std::string_view custom_id,
                               const http::Problem& problem) const {
  const http::Response response = respond_to_problem(http::Family::kOpenAi, problem);
  std::string text = response_begin(line, custom_id, response.status);
  text += response.body;
  text += kResponseEnd;
  return text;
}

protocol::ResultBlock slice_of(const protocol::ResultBlock& results, std::size_t first,
                               std::size_t count, std::size_t first_row) {
  protocol::ResultBlock slice;
  slice.codes = part_of(results.codes, first, count);
  slice.token_counts = part_of(results.token_counts, first, count);
  slice.tokens_cut = part_of(results.tokens_cut, first, count);
  slice.sources = part_of(results.sources, first, count);
  for (const protocol::ItemError& error : results.errors) {
    if (error.index >= first && error.index < first + count) {
      slice.errors.push_back(
          {.index = error.index - static_cast<std::uint32_t>(first), .message = error.message});
    }
  }
  slice.dimensions = results.dimensions;
  slice.vector_type = results.vector_type;
  if (results.sources.empty() && results.cache_hits == results.codes.size()) {
    slice.cache_hits = static_cast<std::uint32_t>(count);
  }
  const auto rows = static_cast<std::size_t>(std::ranges::count(slice.codes, 0));
  const std::size_t bytes = protocol::row_bytes(results);
  slice.payload = part_of(results.payload, first_row * bytes, rows * bytes);
  return slice;
}

LineResult result_line(const LineNames& names, const PlacedLine& line,
                       protocol::ResultBlock results, const std::string& model) {
  EmbedAnswer answer;
  answer.items = line.items;
  answer.dimensions = results.dimensions;
  answer.vector_type = results.vector_type;
  answer.first_items = {0};
  auto problem = count_results(results, 0, "input", answer);
  OpenAiRead read;
  read.dtype = line.dtype;
  read.base64 = line.base64;
  if (!problem) {
    problem = judge_openai_answer(read, answer);
  }
  if (problem) {
    return {.text = names.refused(line.number, line.custom_id, *problem)};
  }
  LineResult done{.text = names.response_begin(line.number, line.custom_id, 200),
                  .ok = true,
                  .tokens = answer.tokens,
                  .cached_tokens = answer.cached_tokens};
  std::vector<VectorSection> sections;
  sections.push_back(openai_section(read, answer, model));
  answer.blocks.push_back(std::move(results));
  VectorsBody body(std::move(answer), std::move(sections));
  while (body.next(done.text) == http::BodySource::State::kMore) {
  }
  done.text += LineNames::kResponseEnd;
  return done;
}

}  // namespace tessera::gateway
