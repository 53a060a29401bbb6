// In place of mp4_ffmpeg.cpp where the program is built without FFmpeg.
#include "common/mp4.hpp"

namespace ebb::examples {

bool mp4_available() { return false; }

std::unique_ptr<VideoSink> open_mp4(const std::filesystem::path& path, const VideoFormat&) {
  throw ConfigError(concat(path.string(),
                           ": this program was built without FFmpeg and writes no .mp4; install libavformat-dev, "
                           "libavcodec-dev, libswscale-dev and libavutil-dev and configure again, or write .y4m"));
}

}  // namespace ebb::examples
