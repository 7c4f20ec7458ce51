//! The page for clients that do not know a stage of authentication.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, TestServer, v3};

fn page(stage: &str) -> String {
    v3(["auth", stage, "fallback", "web"])
}

both_engines! {
    async fn a_stage_is_passed_in_a_browser_for_one_session(server: TestServer) {
        let alice = server.register("alice").await;
        let browser = server.anonymous();
        let other = alice.login_again().await;
        let path = v3(["devices", &other.device_id]);
        let ask = alice.delete(&path, json!({})).await;
        let session = ask.json["session"].as_str().expect("a session");

        let shown = browser.get(&format!("{}?session={session}", page("m.login.password"))).await;
        assert_eq!(shown.status, 200);
        assert!(shown.headers["content-type"].to_str().is_ok_and(|kind| kind.starts_with("text/html")));
        assert!(shown.headers["content-security-policy"].to_str().is_ok_and(|policy| policy.contains("default-src 'none'")));
        assert!(shown.text.contains("onAuthDone"), "what the specification wants");
        assert!(!shown.text.contains(session), "the page is the same for everyone");

        let send = async |stage: &str, session: &str, proof: &str| {
            browser.post(&page(stage), json!({ "session": session, "proof": proof })).await
        };
        let again = async || alice.delete(&path, json!({ "auth": { "session": session } })).await;
        send("m.login.password", session, "wrong password").await.error(403, "M_FORBIDDEN");
        send("m.login.password", "made up", PASSWORD).await.error(400, "M_UNKNOWN");
        send("m.login.dummy", session, "").await.ok();
        assert_eq!(again().await.status, 401, "that stage is in no flow");
        send("m.login.password", session, PASSWORD).await.ok();
        again().await.ok();
        assert_eq!(other.get(&v3(["account", "whoami"])).await.status, 401);
        send("m.login.password", session, PASSWORD).await.error(400, "M_UNKNOWN");
    }

    async fn somebody_registers_with_the_page(server: TestServer) {
        let browser = server.anonymous();
        let register = async |auth: Value| {
            browser.post(&v3(["register"]), json!({ "username": "bob", "password": PASSWORD, "auth": auth })).await
        };
        let session = register(Value::Null).await.json["session"].clone();
        let body = json!({ "session": session });
        browser.post(&page("m.login.dummy"), body.clone()).await.ok();
        assert_eq!(register(body).await.ok()["user_id"], "@bob:sabha.test");
    }
}

#[tokio::test]
async fn there_are_pages_for_the_stages_of_this_server_only() {
    let server = TestServer::start().await;
    let browser = server.anonymous();
    browser.get(&(page("m.login.recaptcha") + "?session=x")).await.error(404, "M_NOT_FOUND");
    browser.post(&page("m.login.recaptcha"), json!({ "session": "x" })).await.error(404, "M_NOT_FOUND");
    browser.post(&page("m.login.dummy"), json!([])).await.error(400, "M_BAD_JSON");
}
