#include "clients/gateway/batches/lines/input_check.hpp"

#include <algorithm>

#include "clients/gateway/batches/lines/custom_ids.hpp"

namespace tessera::gateway {
namespace {

constexpr std::uint64_t kLinesPerLook = 256;

class InputCheck {
 public:
  InputCheck(const CheckRules& rules, const LineNames& names, const std::filesystem::path& folder,
             AppendFile& errors)
      : rules_(rules), names_(names), ids_(folder), errors_(errors) {
    out_.plan.accept_token_ids = rules.accept_token_ids;
  }

  void take_too_long(std::uint64_t number) {
    ++out_.plan.lines;
    add_fault({.code = "invalid_json_line",
               .message =
                   "The line is longer than " + std::to_string(kBatchLineBytesMax >> 20U) + " MiB.",
               .param = {},
               .line = 0},
              number);
  }

  void take(std::string& text, std::uint64_t number) {
    ++out_.plan.lines;
    auto read = read_batch_line(text, rules_.items_max);
    if (auto* fault = std::get_if<BatchFault>(&read)) {
      return add_fault(std::move(*fault), number);
    }
    auto& line = std::get<BatchLine>(read);
    ids_.add(line.custom_id, number);
    if (const auto* model = model_of(line, number)) {
      judge_batch_line(line, *model, rules_.accept_token_ids);
    } else if (!line.read.problem) {
      return;  // The model was the fault.
    }
    if (line.read.problem) {
      errors_.append(names_.refused(number, line.custom_id, *line.read.problem));
      ++out_.refused;
      return;
    }
    take_spec(line.read.call.spec, number);
  }

  CheckedInput finish() {
    for (const CustomIds::Twin& twin : ids_.twins(kBatchFaultsMax)) {
      out_.faults.push_back(
          {.code = "duplicate_custom_id",
           .message = "The custom_id is that of line " + std::to_string(twin.first) + ", too.",
           .param = "custom_id",
           .line = twin.line});
    }
    if (out_.plan.lines == 0) {
      out_.faults.push_back(
          {.code = "empty_batch", .message = "The file has no lines.", .param = {}, .line = 0});
    }
    std::ranges::stable_sort(out_.faults, {}, &BatchFault::line);
    out_.faults.resize(std::min(out_.faults.size(), kBatchFaultsMax));
    return std::move(out_);
  }

 private:
  void add_fault(BatchFault fault, std::uint64_t number) {
    fault.line = number;
    if (out_.faults.size() < kBatchFaultsMax) {
      out_.faults.push_back(std::move(fault));
    }
  }

  // The batch's one model; none when this line's is another, or is not served, or there is none.
  const protocol::ModelInfo* model_of(const BatchLine& line, std::uint64_t number) {
    const std::string& name = line.read.model;
    if (name.empty()) {
      return nullptr;
    }
    const auto found = std::ranges::find(rules_.models, name, &protocol::ModelInfo::name);
    if (found == rules_.models.end()) {
      add_fault({.code = "model_not_found",
                 .message = "The model " + name.substr(0, 200) + " is not served here.",
                 .param = "body.model",
                 .line = 0},
                number);
      return nullptr;
    }
    BatchPlan& plan = out_.plan;
    if (plan.model.empty()) {
      plan.model = found->name;
      plan.hidden_size = found->hidden_size;
      plan.tokenizer_hash = found->tokenizer_hash;
    }
    if (plan.model != found->name) {
      add_fault({.code = "model_mismatch",
                 .message = "The model is not " + plan.model +
                            ", which the lines before name; a batch has one.",
                 .param = "body.model",
                 .line = 0},
                number);
      return nullptr;
    }
    return &*found;
  }

  void take_spec(const protocol::EmbedSpec& spec, std::uint64_t number) {
    std::vector<protocol::EmbedSpec>& specs = out_.plan.specs;
    if (std::ranges::find(specs, spec) != specs.end()) {
      return;
    }
    if (specs.size() == kBatchSpecsMax) {
      return add_fault(
          {.code = "too_many_specs",
           .message = "The lines differ in more than " + std::to_string(kBatchSpecsMax) +
                      " ways of dimensions, prompts and truncation.",
           .param = {},
           .line = 0},
          number);
    }
    specs.push_back(spec);
  }

  const CheckRules& rules_;
  const LineNames& names_;
  CustomIds ids_;
  AppendFile& errors_;
  CheckedInput out_;
};

}  // namespace

std::optional<CheckedInput> check_input(const InputFile& input, const CheckRules& rules,
                                        const LineNames& names, const std::filesystem::path& folder,
                                        AppendFile& errors, const std::function<bool()>& go_on) {
  InputCheck check(rules, names, folder, errors);
  LineReader reader(input);
  std::string line;
  for (std::uint64_t count = 0; reader.next(line); ++count) {
    if (count % kLinesPerLook == 0 && !go_on()) {
      return std::nullopt;
    }
    if (reader.too_long()) {
      check.take_too_long(reader.number());
    } else {
      check.take(line, reader.number());
    }
  }
  return check.finish();
}

}  // namespace tessera::gateway
