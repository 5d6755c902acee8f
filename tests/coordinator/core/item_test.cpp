#include <gtest/gtest.h>

#include <set>

#include "coordinator/core/items/blank_text.hpp"
#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/items/key_hasher.hpp"
#include "coordinator/core/items/prepared_ids.hpp"
#include "coordinator/core/items/resolved_spec.hpp"
#include "coordinator/core/items/served_model.hpp"

namespace tessera::coordinator {
namespace {

const ServedModel kModel{.name = "m",
                         .tokenizer_hash = {},
                         .hidden_size = 256,
                         .max_seqlen = 100,
                         .vocab_size = 1000,
                         .final_token = 999,
                         .query_prefix = "Instruct: default\nQuery:",
                         .document_prefix = "passage: ",
                         .prompts = {{"query", "Instruct: default\nQuery:"},
                                     {"document", "passage: "},
                                     {"clustering", "Cluster: "}}};

TEST(Item, BlankMeansUnicodeWhiteSpaceOnly) {
  const std::pair<std::string, bool> cases[] = {
      {"", true},
      {" \t\r\n\v\f", true},
      {"\u00a0\u0085\u1680\u2003\u2028\u202f\u205f\u3000", true},
      {"a", false},
      {"   a", false},
      {std::string("\0", 1), false},
      {"\u200b", false},  // Zero width space is not White_Space.
      {"\u3042", false},
      {"\U0001F600", false},
      {"\xe3\x80", false},  // Cut off; judged later as invalid.
      {"\xff", false},
  };
  for (const auto& [text, blank] : cases) {
    EXPECT_EQ(is_blank(text), blank) << text;
  }
}

TEST(Item, ResolveChecksTheSpecification) {
  const ServedModel models[] = {kModel};
  struct Case {
    protocol::EmbedSpec spec;
    ErrorCode code;
  };
  const Case cases[] = {
      {{}, ErrorCode::kOk},
      {{.model = "m"}, ErrorCode::kOk},
      {{.model = "n"}, ErrorCode::kNotFound},
      {{.dimensions = 32}, ErrorCode::kOk},
      {{.dimensions = 31}, ErrorCode::kInvalidArgument},
      {{.dimensions = 256}, ErrorCode::kOk},
      {{.dimensions = 257}, ErrorCode::kInvalidArgument},
      {{.instruction = "t"}, ErrorCode::kInvalidArgument},
      {{.query = true, .instruction = "t"}, ErrorCode::kOk},
      {{.max_tokens = 1}, ErrorCode::kInvalidArgument},
      {{.max_tokens = 2}, ErrorCode::kOk},
      {{.max_tokens = 101}, ErrorCode::kInvalidArgument},
  };
  for (const Case& c : cases) {
    const auto resolved = resolve(c.spec, models);
    EXPECT_EQ(resolved.ok() ? ErrorCode::kOk : resolved.error().code, c.code);
  }
  const ServedModel two[] = {kModel, kModel};
  EXPECT_FALSE(resolve({}, two).ok());
}

TEST(Item, QueriesGetTheTemplate) {
  const ServedModel models[] = {kModel};
  EXPECT_EQ(resolve({.query = true}, models)->prefix, "Instruct: default\nQuery:");
  EXPECT_EQ(resolve({.query = true, .instruction = "find"}, models)->prefix,
            "Instruct: find\nQuery:");
  EXPECT_EQ(resolve({}, models)->prefix, "passage: ");
  EXPECT_EQ(resolve({.dimensions = 0}, models)->dimensions, 256U);
}

TEST(Item, PromptsGoByName) {
  const ServedModel models[] = {kModel};
  const auto prefix_of = [&](const protocol::EmbedSpec& spec) { return resolve(spec, models); };
  EXPECT_EQ(prefix_of({.prompt_name = "clustering"})->prefix, "Cluster: ");
  EXPECT_EQ(prefix_of({.prompt_name = "document"})->prefix, "passage: ");
  EXPECT_EQ(prefix_of({.query = true, .prompt_name = "query"})->prefix, kModel.query_prefix);
  struct Refusal {
    protocol::EmbedSpec spec;
    std::string_view says;
  };
  const Refusal refusals[] = {
      {{.prompt_name = "Query"}, "it has: clustering, document, query"},
      {{.query = true, .prompt_name = "document"}, "leave query or prompt_name out"},
      {{.query = true, .instruction = "t", .prompt_name = "query"}, "exclude each other"},
      {{.instruction = "t", .prompt_name = "query"}, "only for queries"},
  };
  for (const Refusal& refusal : refusals) {
    const auto resolved = prefix_of(refusal.spec);
    ASSERT_FALSE(resolved.ok()) << refusal.says;
    EXPECT_EQ(resolved.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(resolved.error().message.find(refusal.says), std::string::npos)
        << resolved.error().message;
  }
}

TEST(Item, AFolderMayLeaveOpenWhatPlainTextsGet) {
  ServedModel model = kModel;
  model.plain_refusal = "say prompt_name";
  model.default_dimensions = 48;
  const ServedModel models[] = {model};
  EXPECT_NE(resolve({}, models).error().message.find("say prompt_name"), std::string::npos);
  EXPECT_EQ(resolve({.prompt_name = "document"}, models)->prefix, "passage: ");
  EXPECT_EQ(resolve({.query = true}, models)->prefix, kModel.query_prefix);
  EXPECT_EQ(resolve({.query = true}, models)->dimensions, 48U);
  EXPECT_EQ(resolve({.query = true, .dimensions = 256}, models)->dimensions, 256U);
}

TEST(Item, KeysTellEverythingApartThatMattersAndNothingElse) {
  const ResolvedSpec plain{};
  const ResolvedSpec prefixed{.prefix = "ab"};
  const ResolvedSpec left{.truncate = protocol::Truncate::kLeft};
  const std::vector<std::int32_t> ids = {1, 2};
  const std::string_view same_bytes(reinterpret_cast<const char*>(ids.data()), 8);
  std::set<CacheKey> keys = {
      KeyHasher("f", plain, 0).text_key("abc"),     KeyHasher("g", plain, 0).text_key("abc"),
      KeyHasher("f", left, 0).text_key("abc"),      KeyHasher("f", plain, 9).text_key("abc"),
      KeyHasher("f", plain, 0).text_key("abd"),     KeyHasher("f", plain, 0).ids_key(ids),
      KeyHasher("f", plain, 0).text_key(same_bytes)};
  EXPECT_EQ(keys.size(), 7U);
  EXPECT_EQ(KeyHasher("f", prefixed, 0).text_key("c"), KeyHasher("f", plain, 0).text_key("abc"))
      << "the final text is what counts";
  const ResolvedSpec narrow{.dimensions = 32};
  EXPECT_EQ(KeyHasher("f", narrow, 0).text_key("abc"), KeyHasher("f", plain, 0).text_key("abc"))
      << "all widths share one entry";
}

TEST(Item, TokenIdsAreCheckedClosedAndCut) {
  using protocol::Truncate;
  struct Case {
    std::vector<std::int32_t> ids;
    Truncate truncate;
    std::uint32_t max_tokens;
    ErrorCode code;
    std::vector<std::int32_t> expected;
    std::uint32_t cut;
  };
  const Case cases[] = {
      {{1, 2}, Truncate::kNone, 9, ErrorCode::kOk, {1, 2, 999}, 0},
      {{1, 999}, Truncate::kNone, 9, ErrorCode::kOk, {1, 999}, 0},
      {{}, Truncate::kNone, 9, ErrorCode::kEmptyText, {}, 0},
      {{1000}, Truncate::kNone, 9, ErrorCode::kInvalidTokenId, {}, 0},
      {{-1}, Truncate::kNone, 9, ErrorCode::kInvalidTokenId, {}, 0},
      {{1, 2, 3}, Truncate::kNone, 3, ErrorCode::kTooLong, {}, 0},
      {{1, 2, 3}, Truncate::kRight, 3, ErrorCode::kOk, {1, 2, 999}, 1},
      {{1, 2, 3}, Truncate::kLeft, 3, ErrorCode::kOk, {2, 3, 999}, 1},
      {{1, 2, 3, 4, 999}, Truncate::kRight, 2, ErrorCode::kOk, {1, 999}, 3},
      {{1, 2, 3, 4, 999}, Truncate::kLeft, 2, ErrorCode::kOk, {4, 999}, 3},
  };
  for (const Case& c : cases) {
    const auto got = prepare_ids(std::as_bytes(std::span(c.ids)), kModel, c.truncate, c.max_tokens);
    EXPECT_EQ(got.ok() ? ErrorCode::kOk : got.error().code, c.code);
    if (got.ok()) {
      EXPECT_EQ(got->ids, c.expected);
      EXPECT_EQ(got->tokens_cut, c.cut);
    }
  }
}

}  // namespace
}  // namespace tessera::coordinator
