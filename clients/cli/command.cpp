#include "clients/cli/command.hpp"

#include <algorithm>
#include <filesystem>
#include <map>

#include "common/check.hpp"

namespace tessera::cli {

void add_connect_options(CLI::App& command, ConnectOptions& options) {
  options.client.name = "tessera-cli";
  command
      .add_option("--coordinator", options.client.coordinator,
                  "Where the coordinator listens for clients")
      ->envname("TESSERA_COORDINATOR")
      ->capture_default_str();
  command.add_option("--tenant", options.client.tenant, "Tenant to whom the work is counted");
  command.add_option("--connect-s", options.connect_s, "Longest wait for the coordinator, seconds")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
}

client::Client connect(const ConnectOptions& options) {
  client::Client client(options.client);
  const auto wait = std::chrono::milliseconds(static_cast<int>(options.connect_s * 1000));
  if (auto hello = client.connect(wait); !hello) {
    const Error& error = hello.error();
    throw FatalError(error.code == ErrorCode::kUnavailable
                         ? error.message + "; start a cluster with: tessera up --model DIR"
                         : std::string(tessera::to_string(error.code)) + ": " + error.message);
  }
  return client;
}

CLI::Option* add_prompt_name(CLI::App& command, protocol::EmbedSpec& spec) {
  return command
      .add_option("--prompt-name", spec.prompt_name,
                  "Put the model folder's prompt of this name before each text; `tessera status` "
                  "lists them")
      ->check(CLI::Validator(
          [](const std::string& name) {
            return name.empty() || name.size() > protocol::kNameBytesMax ? "1 to 256 bytes" : "";
          },
          "NAME", "length"));
}

void add_spec_options(CLI::App& command, protocol::EmbedSpec& spec) {
  using protocol::Truncate;
  command.add_option("--model", spec.model, "Model's name; default: the only one served");
  auto* query = command.add_flag("--query", spec.query,
                                 "The texts are queries: put the model's instruction before each");
  auto* prompt_name = add_prompt_name(command, spec)->excludes(query);
  command
      .add_option_function<std::string>(
          "--instruction",
          [&spec](const std::string& text) {
            spec.instruction = text;
            spec.query = true;
          },
          "One sentence on the task, instead of the model's default; implies --query")
      ->excludes(prompt_name)
      ->check(CLI::Validator(
          [](const std::string& text) {
            return text.size() > protocol::kInstructionBytesMax ? "at most 8192 bytes" : "";
          },
          "TEXT", "length"));
  command.add_option("--dimensions", spec.dimensions, "Width of the vectors; default: the model's");
  command
      .add_option_function<std::string>(
          "--truncate",
          [&spec](const std::string& side) {
            spec.truncate = side == "left"    ? Truncate::kLeft
                            : side == "right" ? Truncate::kRight
                                              : Truncate::kNone;
          },
          "Cut texts that are too long: none (they are errors), left or right")
      ->check(CLI::IsMember({"none", "left", "right"}))
      ->default_str("none");
  command.add_option("--max-tokens", spec.max_tokens,
                     "Own length limit under the model's, the final token included");
}

const protocol::ModelInfo* served_model(const std::vector<protocol::ModelInfo>& models,
                                        const std::string& name) {
  if (name.empty()) {
    return models.size() == 1 ? &models.front() : nullptr;
  }
  const auto found = std::ranges::find(models, name, &protocol::ModelInfo::name);
  return found == models.end() ? nullptr : &*found;
}

const char* to_string(protocol::JobState state) {
  switch (state) {
    case protocol::JobState::kOpen:
      return "open";
    case protocol::JobState::kRunning:
      return "running";
    case protocol::JobState::kDone:
      return "done";
    case protocol::JobState::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

std::string program_folder() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    throw FatalError("cannot read /proc/self/exe: " + error.message());
  }
  return path.parent_path();
}

}  // namespace tessera::cli
