import java.net.InetSocketAddress;
import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.HashMap;
import java.util.Map;
import java.util.function.Consumer;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.apache.iceberg.catalog.Catalog;
import org.apache.iceberg.rest.HTTPRequest;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.apache.iceberg.rest.RESTResponse;
import org.apache.iceberg.rest.credentials.ImmutableCredential;
import org.apache.iceberg.rest.responses.ErrorResponse;
import org.apache.iceberg.rest.responses.LoadTableResponse;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.sts.StsClient;

/**
 * The Iceberg project's reference server, on 127.0.0.1 alone: the project's own main class, RESTCatalogServer, puts the same
 * servlet on every address of the machine. The argument is the port; variables CATALOG_… are the catalog's properties, with
 * two underlines for a hyphen and one for a dot. With LEND_SECONDS it lends keys to the files of each table that is loaded,
 * as catalogs in a cloud do: real ones of the storage's STS, which are said to live for so long, and are reached at
 * LEND_ENDPOINT.
 */
class IcebergRest {
  public static void main(String[] arguments) throws Exception {
    Map<String, String> properties = new HashMap<>();
    System.getenv().forEach((name, value) -> {
      if (name.startsWith("CATALOG_")) {
        String key = name.substring("CATALOG_".length()).replace("__", "-").replace("_", ".").toLowerCase();
        properties.put(key, value);
      }
    });
    properties.put("catalog-impl", "org.apache.iceberg.jdbc.JdbcCatalog");
    var catalog = CatalogUtil.buildIcebergCatalog("reference", properties, new Configuration());
    var lend = System.getenv("LEND_SECONDS");
    var adapter =
        lend == null
            ? new RESTCatalogAdapter(catalog)
            : new Lending(catalog, properties, Duration.ofSeconds(Long.parseLong(lend)));
    var context = new ServletContextHandler();
    context.addServlet(new ServletHolder(new RESTCatalogServlet(adapter)), "/*");
    var server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
    server.setHandler(context);
    server.start();
    server.join();
  }
}

/** Adds lent keys to what is said of tables. */
class Lending extends RESTCatalogAdapter {
  private final Map<String, String> storage;
  private final Duration life;
  private final StsClient sts;

  Lending(Catalog catalog, Map<String, String> storage, Duration life) {
    super(catalog);
    this.storage = storage;
    this.life = life;
    var keys = AwsBasicCredentials.create(storage.get("s3.access-key-id"), storage.get("s3.secret-access-key"));
    this.sts =
        StsClient.builder()
            .endpointOverride(URI.create(storage.get("s3.endpoint")))
            .region(Region.of(storage.get("client.region")))
            .credentialsProvider(StaticCredentialsProvider.create(keys))
            .build();
  }

  @Override
  protected <T extends RESTResponse> T execute(
      HTTPRequest request,
      Class<T> type,
      Consumer<ErrorResponse> errors,
      Consumer<Map<String, String>> headers) {
    T answer = super.execute(request, type, errors, headers);
    // As at Lakekeeper, a commit is answered without.
    boolean lends = request.method() == HTTPRequest.HTTPMethod.GET || request.path().endsWith("/tables");
    if (!lends || !(answer instanceof LoadTableResponse loaded)) {
      return answer;
    }
    // MinIO lends for a quarter of an hour at least; that they end earlier is the matter of what stands in front of it.
    var lent =
        sts.assumeRole(role -> role.roleArn("arn:aws:iam::0:role/any").roleSessionName("lent").durationSeconds(900))
            .credentials();
    var credential =
        ImmutableCredential.builder()
            .prefix(loaded.tableMetadata().location())
            .putConfig("s3.access-key-id", lent.accessKeyId())
            .putConfig("s3.secret-access-key", lent.secretAccessKey())
            .putConfig("s3.session-token", lent.sessionToken())
            .putConfig("s3.session-token-expires-at-ms", String.valueOf(Instant.now().plus(life).toEpochMilli()))
            .build();
    return type.cast(
        LoadTableResponse.builder()
            .withTableMetadata(loaded.tableMetadata())
            .addAllConfig(loaded.config())
            .addConfig("s3.endpoint", System.getenv("LEND_ENDPOINT"))
            .addConfig("s3.path-style-access", "true")
            .addConfig("s3.region", storage.get("client.region"))
            .addCredential(credential)
            .build());
  }
}
